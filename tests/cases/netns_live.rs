//! One engine: the sessions that the proxy reports of live packets are those that `outrider inspect` reads
//! from a capture of the same packets.

#[path = "netns_live/traffic.rs"]
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_model::IpProto;
use outrider_packet::{Engine, Event, Frame, Limits, LinkType};
use outrider_tests::{
    Pod, World, binaries,
    ctrl::Ctrl,
    process::{Process, run},
    require_netns, until,
};
use serde_json::Value;

use self::traffic::Servers;

/// The tap's last block and tcpdump's last write are here within this; an ICMP session is not yet gone.
const SETTLED: Duration = Duration::from_secs(4);
const START: Duration = Duration::from_secs(30);

/// What must be equal of a session, live and from the file. Nothing else is told by both.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Told {
    app: u32,
    /// Bytes of payload, by client and server.
    bytes: [u64; 2],
    packets: [u64; 2],
}

/// Protocol, client and server.
type Key = (String, SocketAddr, SocketAddr);
type Sessions = BTreeMap<Key, Told>;

/// Ends of ICMP have no ports on the ctrl wire: here they are 0.
fn key(proto: IpProto, client: SocketAddr, server: SocketAddr) -> Key {
    let bare = |end: SocketAddr| match proto {
        IpProto::ICMP | IpProto::ICMPV6 => SocketAddr::new(end.ip(), 0),
        _ => end,
    };
    (proto.to_string(), bare(client), bare(server))
}

/// What the proxy tells on the ctrl socket.
fn live(ctrl: &Ctrl) -> Result<Sessions> {
    let mut sessions = Sessions::new();
    for session in ctrl.sessions()? {
        let ends = session.client_addr().zip(session.server_addr());
        let (client, server) = ends.context("a session without addresses")?;
        let key = key(
            session.ip_proto,
            SocketAddr::new(client, session.client_port),
            SocketAddr::new(server, session.server_port),
        );
        let sides = [session.client, session.server];
        let told = Told {
            app: session.application.0,
            bytes: sides.map(|side| side.bytes.into()),
            packets: sides.map(|side| side.packets.into()),
        };
        ensure!(sessions.insert(key.clone(), told).is_none(), "{key:?} is there twice");
    }
    Ok(sessions)
}

/// What `outrider inspect` reads from the file, and the engine's packets, which the command does not show.
fn from_file(capture: &Path) -> Result<Sessions> {
    let packets = packets(&fs::read(capture)?)?;
    let mut inspect = std::process::Command::new(binaries::find("outrider")?);
    let rows = run(inspect.arg("inspect").arg(capture).arg("--json"))?;
    let mut sessions = Sessions::new();
    for line in rows.lines() {
        let row: Value = serde_json::from_str(line)?;
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| row[name].as_u64().context("a number");
        let (client, server): (SocketAddr, SocketAddr) =
            (text("client").parse()?, text("server").parse()?);
        let proto = text("proto");
        let Some((proto, packets)) = packets.get(&(proto, client, server)) else {
            continue;
        };
        let told = Told {
            app: u32::try_from(number("app_id")?)?,
            bytes: [number("client_bytes")?, number("server_bytes")?],
            packets: *packets,
        };
        sessions.insert(key(*proto, client, server), told);
    }
    Ok(sessions)
}

/// Packets by client and server of the flows that a proxy keeps sessions of: from one host to one host, and not
/// about the network itself.
fn packets(capture: &[u8]) -> Result<BTreeMap<Key, (IpProto, [u64; 2])>> {
    let mut engine = Engine::new(Limits::default());
    let mut found = BTreeMap::new();
    let mut hear = |event: Event<'_>| {
        let Event::Closed(record) = event else { return };
        let ends = record.ends;
        if is_session(ends.proto, ends.client.ip(), ends.server) {
            let packets = [record.client.packets, record.server.packets];
            found.insert((ends.proto.to_string(), ends.client, ends.server), (ends.proto, packets));
        }
    };
    let mut rest = capture.get(FILE_HEADER..).context("no capture")?;
    while let Some((header, behind)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
        let length = usize::try_from(word(8))?;
        let (bytes, next) = behind.split_at_checked(length).context("cut short")?;
        let at = Duration::new(word(0).into(), word(4) * 1000);
        let wire = usize::try_from(word(12))?;
        engine.feed(&Frame { link: LinkType::Ethernet, at, bytes, wire }, &mut hear);
        rest = next;
    }
    engine.finish(&mut hear);
    Ok(found)
}

/// The proxy's own rule of what is a session (docs/packets.md).
fn is_session(proto: IpProto, client: IpAddr, server: SocketAddr) -> bool {
    let shared = |ip: IpAddr| ip.is_multicast() || ip.is_unspecified();
    let [_, kind] = server.port().to_be_bytes();
    let network = match proto {
        IpProto::IGMP => true,
        IpProto::ICMPV6 => matches!(kind, 1..=4 | 130..=137 | 143),
        IpProto::ICMP => matches!(kind, 3 | 4 | 11 | 12),
        _ => false,
    };
    !network && !shared(client) && !shared(server.ip())
}

/// Bytes of a capture's header, and of a record's.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// tcpdump on the pod's interface, writing each packet at once.
fn tcpdump(pod: &Pod, file: &Path) -> Result<Process> {
    let mut command = pod.netns.command("tcpdump");
    command
        .args(["-i", "eth0", "-n", "-U", "--immediate-mode", "-s", "0", "-B", "8192"])
        .args(["-Z", "root", "-w"])
        .arg(file);
    let mut dump = Process::spawn("tcpdump", command, &pod.file("tcpdump.log"))?;
    let log = pod.file("tcpdump.log");
    dump.ready(START, || {
        let said = fs::read_to_string(&log)?;
        ensure!(said.contains("listening on"), "{said}");
        Ok(())
    })?;
    Ok(dump)
}

/// What one side tells and the other does not, or tells otherwise.
fn differences(live: &Sessions, read: &Sessions) -> Vec<String> {
    let keys: BTreeSet<_> = live.keys().chain(read.keys()).collect();
    keys.into_iter()
        .map(|key| (key, live.get(key), read.get(key)))
        .filter(|(_, live, read)| live != read)
        .map(|(key, live, read)| format!("{key:?}: live {live:?}, in the file {read:?}"))
        .collect()
}

#[test]
fn sessions_seen_live_are_those_of_the_capture() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, mut shop) = (world.pod("web")?, world.pod("shop")?);
    web.start_proxy_with_net_raw(&[("OUTRIDER_PROXY_CAPTURE", "none")])?;
    for pod in [&mut web, &mut shop] {
        pod.serve_nginx()?;
        pod.serve_redis()?;
    }
    let servers = Servers::start(&web)?;
    let file = world.file("captures/live.pcap")?;
    let dump = tcpdump(&web, &file)?;
    traffic::generate(&web, &shop)?;
    let ctrl = Ctrl::connect(&web.mailbox)?;
    let found = until("the sessions of the file", SETTLED, || {
        let (live, read) = (live(&ctrl)?, from_file(&file)?);
        let differ = differences(&live, &read);
        ensure!(differ.is_empty(), "{differ:#?}");
        Ok(read)
    })?;
    drop((dump, servers));
    let count = |proto: &str, app: u32| {
        let of = |(key, told): &(&Key, &Told)| key.0 == proto && told.app == app;
        found.iter().filter(of).count()
    };
    for (proto, app, least) in traffic::EXPECTED {
        let seen = count(proto, app);
        ensure!(seen >= least, "{seen} sessions of {proto} with application {app}: {found:#?}");
    }
    let metrics = web.metrics()?;
    let lost = metrics.sum("outrider_tap_frames_lost_total", &[]);
    ensure!(lost == 0.0, "{lost} frames were lost");
    ensure!(metrics.sum("outrider_tier", &[("tier", "tap")]) == 1.0);
    Ok(())
}
