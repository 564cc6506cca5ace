//! The packet queue: the kernel counts what rules send there, as long as somebody reads it, the proxy or we.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use outrider_model::names::QUEUE;

use super::destination::{PORT, nobody};
use super::probe::{PATIENCE, User, datagram_socket};
use super::{Finding, Findings, name};
use crate::apply::netlink::{QueueReader, queued};
use crate::plan::Family;
use crate::settings::Settings;

/// Datagrams of a probe: other packets of the pod are counted too, so one would prove nothing.
const DATAGRAMS: u32 = 16;

/// A reader, and how much the queue has taken so far.
struct Watch {
    _reader: Option<QueueReader>,
    before: u32,
}

impl Watch {
    /// Begins to count, if the kernel lets us see.
    fn begin() -> Option<Self> {
        // Where the proxy reads the queue, its place is taken, and it does the same for us.
        let reader = QueueReader::take(QUEUE).ok();
        queued(QUEUE).map(|before| Self { _reader: reader, before })
    }

    fn seen(&self) -> u32 {
        queued(QUEUE).map_or(0, |now| now.wrapping_sub(self.before))
    }
}

fn unseen() -> Finding {
    Finding::Unproved("needs NET_ADMIN and uid 0 to see the packet queue".to_owned())
}

/// What the workload sends is queued, what the proxy sends is not.
pub(super) fn outbound(settings: &Settings, proxy: &User, findings: &mut Findings) {
    for family in Family::ALL {
        let to = SocketAddr::new(nobody(family), PORT);
        let workload = watched(User::workload(settings), to, |seen| match seen {
            DATAGRAMS.. => Finding::Holds,
            _ => Finding::Broken(format!("{seen} of {DATAGRAMS} datagrams to {to} were queued")),
        });
        let what = format!("{}: what is not TCP waits for the proxy, outbound", name(family));
        findings.add(what, workload);
        let own = watched(*proxy, to, |seen| match seen {
            DATAGRAMS.. => Finding::Broken(format!("datagrams to {to} were queued")),
            _ => Finding::Holds,
        });
        findings.add(format!("{}: the proxy's own datagrams do not wait", name(family)), own);
    }
}

fn watched(sender: User, to: SocketAddr, judge: impl FnOnce(u32) -> Finding) -> Finding {
    let Some(watch) = Watch::begin() else { return unseen() };
    match sender.run(|| send(to)) {
        None => sender.unproved(),
        Some(false) => Finding::Unproved(format!("no way to {to}")),
        Some(true) => judge(watch.seen()),
    }
}

/// What arrives is queued; `work` is done meanwhile, and says whether all of `count` probes were sent.
pub(super) fn inbound<T>(
    count: u32,
    findings: &mut Findings,
    work: impl FnOnce() -> (bool, T),
) -> T {
    let watch = Watch::begin();
    let (sent, outcome) = work();
    let finding = match watch {
        None => unseen(),
        Some(_) if !sent => Finding::Unproved("needs a peer that can send".to_owned()),
        Some(watch) => arrived(&watch, DATAGRAMS.saturating_mul(count)),
    };
    findings.add("IPv4, IPv6: what is not TCP waits for the proxy, inbound".to_owned(), finding);
    outcome
}

/// They may still be on their way.
fn arrived(watch: &Watch, wanted: u32) -> Finding {
    let begun = SystemTime::now();
    while begun.elapsed().is_ok_and(|waited| waited < PATIENCE) {
        if watch.seen() >= wanted {
            return Finding::Holds;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Finding::Broken(format!("{} of {wanted} datagrams were queued", watch.seen()))
}

/// Sends the datagrams of a probe, each of a flow of its own: only the first of a flow waits. False if there is no way.
pub(super) fn send(to: SocketAddr) -> bool {
    let send = || datagram_socket(to)?.send_to(b"outrider-init verify", &to.into());
    (0..DATAGRAMS).all(|_| match send() {
        Ok(_) => true,
        // A rule that drops may tell the sender, after the packet was counted.
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    })
}
