//! Live TCP connections are torn down on both ends by a process in the pod that has `NET_RAW` and holds
//! neither; nobody else's are touched.

#![cfg(test)]

#[path = "netns_resets/enforced.rs"]
mod enforced;
#[path = "netns_resets/host.rs"]
mod host;
#[path = "netns_resets/resetter.rs"]
mod resetter;

use std::{
    ffi::OsString,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use outrider_proxy::packets::reset::MAX_CONDEMNED;
use outrider_tests::{Pod, World, require_netns, until};
use tokio::time::Instant;

use self::{
    host::{End, Host, Traffic},
    resetter::Resetter,
};

/// Connections of a kind that are reset.
const CONNECTIONS: usize = 100;
/// Of those that send as fast as they can, so many at once: with more of them two processors have no time
/// left, and what is measured is how long each waits for its turn.
const BUSY_AT_ONCE: usize = 10;
/// Connections beside them that nobody may touch, on the same ports of the same servers.
const BYSTANDERS: usize = 10;
/// From the decision to the end of half of them, and to the end of the last one on a machine that has other work.
const LIMIT: Duration = Duration::from_millis(200);
const BUSY: Duration = Duration::from_secs(5);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with both of its ends, that of the pod `near` first.
struct Talk {
    addresses: [SocketAddr; 2],
    ends: [End; 2],
}

/// Two pods; the resets come from the first.
struct Stage {
    world: World,
    pods: [Pod; 2],
    hosts: [Host; 2],
    port: u16,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut world = World::new()?;
        let pods = [world.pod("near")?, world.pod("far")?];
        let hosts = [Host::start()?, Host::start()?];
        Ok(Self { world, pods, hosts, port: 7000 })
    }

    /// Opens connections, every other one from the peer; the near end comes first.
    fn connect(&mut self, v6: bool, count: usize) -> Result<Vec<[TcpStream; 2]>> {
        self.port += 1;
        let mut listeners = Vec::new();
        for pod in &self.pods {
            let at = pod.at(v6, self.port);
            listeners.push(pod.netns.enter(|| Ok(TcpListener::bind(at)?))?);
        }
        let mut streams = Vec::new();
        for number in 0..count {
            let (from, to) = (number % 2, 1 - number % 2);
            let server = listeners[to].local_addr()?;
            let netns = &self.pods[from].netns;
            let client = netns.enter(|| Ok(TcpStream::connect(server)?))?;
            let (accepted, _) = listeners[to].accept()?;
            streams.push(if from == 0 { [client, accepted] } else { [accepted, client] });
        }
        Ok(streams)
    }

    /// Gives both ends of each connection to their hosts.
    fn own(
        &self,
        streams: Vec<[TcpStream; 2]>,
        traffic: impl Fn(usize) -> Traffic,
    ) -> Result<Vec<Talk>> {
        let own = |(number, [near, far]): (usize, [TcpStream; 2])| {
            let addresses = [near.local_addr()?, far.local_addr()?];
            let traffic = traffic(number);
            let ends = [self.hosts[0].own(near, traffic)?, self.hosts[1].own(far, traffic)?];
            Ok(Talk { addresses, ends })
        };
        streams.into_iter().enumerate().map(own).collect()
    }

    /// Opens so many connections to be reset, and so many bystanders, which chat.
    fn open(&mut self, v6: bool, counts: [usize; 2], traffic: Traffic) -> Result<[Vec<Talk>; 2]> {
        let streams = self.connect(v6, counts.iter().sum())?;
        let of = |number| if number < counts[0] { traffic } else { Traffic::Chatting };
        let mut talks = self.own(streams, of)?;
        let bystanders = talks.split_off(counts[0]);
        Ok([talks, bystanders])
    }

    fn resetter(&self) -> Result<Resetter> {
        Resetter::start(&self.pods[0].netns, &self.world)
    }

    /// Switches `SACK`, window scaling and time stamps for connections to come.
    fn options(&self, on: bool) -> Result<()> {
        for pod in &self.pods {
            for option in ["tcp_sack", "tcp_window_scaling", "tcp_timestamps"] {
                pod.netns
                    .sysctl(&format!("net/ipv4/{option}"), if on { "1" } else { "0" })?;
            }
        }
        Ok(())
    }

    /// Whether the kernel says so of the connections that are open.
    fn options_are(&self, on: bool) -> Result<()> {
        let said = self.pods[0]
            .netns
            .sh(PATIENCE, "ss -tinoH state established")?;
        let lines: Vec<_> = said.lines().filter(|line| line.contains(" rto:")).collect();
        for line in &lines {
            let has = |option: &str| line.contains(option) == on;
            ensure!([" ts ", " sack ", " wscale:"].into_iter().all(has), "options {on}: {line}");
        }
        ensure!(!lines.is_empty(), "no connection is open");
        Ok(())
    }
}

/// Waits until every end has read so much.
fn flowing(talks: &[Talk], bytes: u64) -> Result<()> {
    until("bytes both ways", PATIENCE, || {
        let least = talks
            .iter()
            .flat_map(|talk| &talk.ends)
            .map(End::read)
            .min();
        ensure!(least >= Some(bytes), "{least:?}");
        Ok(())
    })
}

/// Waits until nothing moves any more: the windows are closed.
fn stalled(talks: &[Talk]) -> Result<()> {
    let mut last = Vec::new();
    until("nothing to move", PATIENCE, || {
        let now: Vec<_> = talks
            .iter()
            .flat_map(|talk| &talk.ends)
            .map(End::written)
            .collect();
        let before = std::mem::replace(&mut last, now);
        ensure!(before == last && last.iter().all(|written| *written > 0), "still moving");
        Ok(())
    })
}

/// How long each end lived since the decision.
fn lives(talks: &[Talk], decided: Instant) -> Result<Vec<Duration>> {
    until("every end to be gone", PATIENCE, || {
        let over: Vec<_> = talks
            .iter()
            .flat_map(|talk| &talk.ends)
            .map(End::over)
            .collect();
        let living = over.iter().filter(|over| over.is_none()).count();
        ensure!(living == 0, "{living} are alive");
        Ok(over.into_iter().flatten().collect::<Vec<_>>())
    })?
    .into_iter()
    .map(|(kind, at)| {
        let reset = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&kind);
        ensure!(reset, "ended with {kind:?}");
        Ok(at.saturating_duration_since(decided))
    })
    .collect()
}

/// The bystanders live, go on talking, and what one end wrote the other has read.
fn untouched(talks: &[Talk]) -> Result<()> {
    let more = talks
        .iter()
        .flat_map(|talk| &talk.ends)
        .map(End::read)
        .max();
    flowing(talks, more.unwrap_or(0) + (64 << 10))?;
    for end in talks.iter().flat_map(|talk| &talk.ends) {
        end.set(Traffic::Idle);
    }
    until("every byte to arrive", PATIENCE, || {
        for [one, other] in talks.iter().map(|talk| &talk.ends) {
            ensure!(one.over().is_none() && other.over().is_none(), "a bystander was reset");
            ensure!(
                one.written() == other.read() && other.written() == one.read(),
                "{one:?} {other:?}"
            );
        }
        Ok(())
    })
}

fn show(name: &str, lives: Vec<Duration>) -> Result<()> {
    show_within(LIMIT, name, lives)
}

/// Shows how long ends lived, and fails if half of them lived for longer than that, or one for much longer.
fn show_within(limit: Duration, name: &str, mut lives: Vec<Duration>) -> Result<()> {
    lives.sort_unstable();
    let at = |percent: usize| lives[(lives.len() - 1) * percent / 100];
    let [half, most, last] = [at(50), at(95), at(100)];
    eprintln!(
        "{name}: {} ends gone; half after {half:.1?}, 95 % after {most:.1?}, the last after {last:.1?}",
        lives.len()
    );
    ensure!(half <= limit, "{name}: half of {} lived for {half:?}", lives.len());
    ensure!(last <= limit + BUSY, "{name}: the last of {} lived for {last:?}", lives.len());
    Ok(())
}

/// Resets 100 connections of a kind, so many at once, of each family, beside bystanders.
fn tear_down(traffic: Traffic, at_once: usize, options: bool) -> Result<()> {
    let mut stage = Stage::new()?;
    stage.options(options)?;
    for v6 in [false, true] {
        let mut all = Vec::new();
        for _ in 0..CONNECTIONS / at_once {
            let [talks, bystanders] = stage.open(v6, [at_once, BYSTANDERS], traffic)?;
            match traffic {
                Traffic::Idle | Traffic::Chatting => {}
                Traffic::Busy => flowing(&talks, 256 << 10)?,
                Traffic::Stalled => stalled(&talks)?,
            }
            stage.options_are(options)?;
            // Older than who resets them: nothing of them was ever seen.
            let mut resetter = stage.resetter()?;
            let decided = resetter.condemn(talks.iter().map(|talk| talk.addresses))?;
            all.extend(lives(&talks, decided)?);
            resetter.done(at_once)?;
            untouched(&bystanders)?;
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        let with = if options { "with" } else { "without" };
        show(&format!("{traffic:?}, {at_once} at once, {with} options, {family}"), all)?;
    }
    Ok(())
}

#[test]
fn idle_connections_end() -> Result<()> {
    require_netns!();
    tear_down(Traffic::Idle, CONNECTIONS, true)
}

#[test]
fn busy_connections_end() -> Result<()> {
    require_netns!();
    tear_down(Traffic::Busy, BUSY_AT_ONCE, true)
}

#[test]
fn connections_with_closed_windows_end() -> Result<()> {
    require_netns!();
    tear_down(Traffic::Stalled, CONNECTIONS, true)
}

#[test]
fn connections_without_any_option_end() -> Result<()> {
    require_netns!();
    tear_down(Traffic::Idle, CONNECTIONS, false)?;
    tear_down(Traffic::Busy, BUSY_AT_ONCE, false)
}

#[test]
fn more_than_the_cap_are_counted_and_so_is_who_does_not_answer() -> Result<()> {
    require_netns!();
    let stage = Stage::new()?;
    let mut resetter = stage.resetter()?;
    let [near, far] = &stage.pods;
    // None of them exists: both kernels say so at once.
    let ports = 20_000..20_001 + u16::try_from(MAX_CONDEMNED)?;
    resetter.condemn(ports.map(|port| [near.at(false, port), far.at(false, 9)]))?;
    let (all, cap) = (MAX_CONDEMNED + 1, MAX_CONDEMNED);
    resetter.says(&format!("condemned: {all}, overflow: 1, done: {cap}, silent: 0, alive: 0,"))?;
    let drop = "iptables -A OUTPUT -p tcp --tcp-flags RST RST -j DROP";
    far.netns.sh(PATIENCE, drop)?;
    resetter.condemn([[near.at(false, 20_000), far.at(false, 9)]].into_iter())?;
    let all = all + 1;
    resetter.says(&format!("condemned: {all}, overflow: 1, done: {cap}, silent: 1, alive: 0,"))
}

#[test]
fn connections_that_are_bound_to_an_interface_end() -> Result<()> {
    require_netns!();
    let mut stage = Stage::new()?;
    for v6 in [false, true] {
        let streams = stage.connect(v6, CONNECTIONS)?;
        for [near, _] in &streams {
            setsockopt(near, sockopt::BindToDevice, &OsString::from("eth0"))?;
        }
        let talks = stage.own(streams, |_| Traffic::Idle)?;
        let mut resetter = stage.resetter()?;
        let decided = resetter.condemn(talks.iter().map(|talk| talk.addresses))?;
        show("Idle, bound to eth0", lives(&talks, decided)?)?;
        resetter.done(CONNECTIONS)?;
    }
    Ok(())
}

#[test]
fn one_connection_at_full_speed_ends_at_once() -> Result<()> {
    require_netns!();
    let mut stage = Stage::new()?;
    let mut resetter = stage.resetter()?;
    let mut all = Vec::new();
    for number in 0..CONNECTIONS {
        let [talks, _] = stage.open(number % 2 == 1, [1, 0], Traffic::Busy)?;
        flowing(&talks, 4 << 20)?;
        let decided = resetter.condemn(talks.iter().map(|talk| talk.addresses))?;
        all.extend(lives(&talks, decided)?);
        resetter.done(number + 1)?;
    }
    show("Busy, one at a time", all)
}
