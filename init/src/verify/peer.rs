//! Inbound connections need a peer: a namespace of our own at the end of a link that exists only for this.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::destination::{PORT, inbound_port};
use super::probe::{Dialled, dial};
use super::standin::StandIn;
use super::{Finding, Findings, queue};
use crate::apply::netlink::link;
use crate::settings::{Queue, Settings};

/// Ends of the link, in the ranges for tests and for local use.
const POD: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 18, 171, 1)), 30),
    (IpAddr::V6(Ipv6Addr::new(0xfd6f, 0x7574, 0, 171, 0, 0, 0, 1)), 126),
];
const PEER: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 18, 171, 2)), 30),
    (IpAddr::V6(Ipv6Addr::new(0xfd6f, 0x7574, 0, 171, 0, 0, 0, 2)), 126),
];

/// Names of the ends; the first is removed at the end, and with it the second.
const POD_LINK: &str = "outrider-verify";
const PEER_LINK: &str = "outrider-peer";

/// Dials a closed port of the pod from outside, in both families: the proxy must accept. With the packet queue,
/// datagrams to it must be queued.
pub(super) fn inbound(settings: &Settings, listener: &StandIn, findings: &mut Findings) {
    let what = |name: &str| format!("{name} inbound connections reach the proxy");
    let port = inbound_port(settings);
    let dialled = if settings.queue == Queue::Off {
        port.map(|port| from_outside(port, listener))
    } else {
        queue::inbound(2, findings, || {
            let outcome = from_outside(port.unwrap_or(PORT), listener);
            let sent = outcome
                .as_ref()
                .is_ok_and(|peers| peers.iter().all(|(_, sent)| *sent));
            (sent, port.map(|_| outcome))
        })
    };
    match dialled {
        None => {
            let why = "the settings capture no inbound port";
            findings.add(what("IPv4, IPv6"), Finding::Unproved(why.to_owned()));
        }
        Some(Ok([(v4, _), (v6, _)])) => {
            findings.add(what("IPv4"), v4);
            findings.add(what("IPv6"), v6);
        }
        Some(Err(error)) => {
            let why = format!("needs SYS_ADMIN to make a peer ({error}); run it from the node");
            findings.add(what("IPv4, IPv6"), Finding::Unproved(why));
        }
    }
}

/// What a peer's connections came to, and whether it could send datagrams.
fn from_outside(port: u16, listener: &StandIn) -> io::Result<[(Finding, bool); 2]> {
    thread::scope(|scope| {
        let (send, receive) = sync_channel(1);
        let (go, wait) = sync_channel(1);
        let peer = scope.spawn(move || dial_from_outside(port, &send, &wait));
        let linked = link_to(&receive);
        // A peer that has already failed does not wait.
        go.send(linked.is_ok()).unwrap_or_default();
        let dialled = peer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Judged while the link is there: the handshake's last packet may still be on its way.
        let outcome = dialled.and_then(|dialled| linked.map(|()| dialled));
        let judged =
            outcome.map(|dialled| dialled.map(|(to, one, sent)| (listener.judge(one, to), sent)));
        drop(link::remove(POD_LINK));
        judged
    })
}

/// In a namespace of its own: says which, waits for the link, dials.
fn dial_from_outside(
    port: u16,
    ready: &SyncSender<File>,
    linked: &Receiver<bool>,
) -> io::Result<[(SocketAddr, Dialled, bool); 2]> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let own = File::open("/proc/thread-self/ns/net")?;
    drop(ready.send(own));
    if linked.recv() != Ok(true) {
        return Err(io::Error::other("no link"));
    }
    link::set_up(PEER_LINK, &PEER)?;
    Ok(POD.map(|(addr, _)| {
        let to = SocketAddr::new(addr, port);
        let dialled = dial_patiently(to);
        (to, dialled, queue::send(to))
    }))
}

/// A link that has just come up loses its first packets.
fn dial_patiently(to: SocketAddr) -> Dialled {
    const ATTEMPTS: usize = 4;
    for _ in 1..ATTEMPTS {
        match dial(to, None) {
            Dialled::Nothing | Dialled::NoWay(_) => {}
            other => return other,
        }
    }
    dial(to, None)
}

/// In the pod: links to the namespace that is handed over.
fn link_to(namespace: &Receiver<File>) -> io::Result<()> {
    let namespace = namespace.recv().map_err(io::Error::other)?;
    link::add_pair(POD_LINK, PEER_LINK, namespace.as_fd())?;
    link::set_up(POD_LINK, &POD)
}
