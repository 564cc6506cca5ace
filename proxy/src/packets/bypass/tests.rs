//! What is strange and what is not, without a network.

use std::net::SocketAddr;

use outrider_capture::{InetSocket, SocketState, Sockets};
use outrider_model::{Direction, IpProto, Mode, PolicyAction, names};

use super::{
    Bypass, HANDED, MAX_HANDED, MAX_SAID,
    known::Known,
    openings::{MAX_OPENINGS, Openings},
    scanner::{Crowd, Looked, MAX_REPORTED, Scanner},
    segment::Segment,
    trick::{Ends, Finding, Trick},
};
use crate::{
    context::SharedContext,
    testing::{assemble, settings},
};

const POD: &str = "10.77.1.5";
/// Of the workload; the proxy's is that of these tests.
const WORKLOAD: u32 = 4242;

fn known(variables: &[(&'static str, &str)]) -> (Known, SharedContext) {
    let dir = tempfile::tempdir().unwrap();
    let (context, _relay, _state) = assemble(settings(dir.path(), variables));
    context.legs.watch();
    (Known::new(SharedContext::clone(&context)), context)
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn socket(local: SocketAddr, remote: SocketAddr, uid: u32) -> InetSocket {
    InetSocket {
        proto: IpProto::TCP,
        state: SocketState::ESTABLISHED,
        local,
        remote,
        interface: 0,
        uid,
        inode: 7,
        queues: [0, 0],
        bytes: None,
    }
}

/// Whether the first of the sockets is strange among all.
fn strange(sockets: &[InetSocket], known: &Known) -> bool {
    Crowd::new(sockets, known).is_strange(&sockets[0], known)
}

#[test]
fn a_connection_without_an_explanation_is_strange() {
    let (known, context) = known(&[]);
    let (near, far) = (at(POD, 40_000), at("10.77.1.9", 80));
    let alone = socket(near, far, WORKLOAD);
    assert!(strange(&[alone], &known));
    let other = socket(at("127.0.0.1", names::OUTBOUND_PORT), at(POD, 40_001), 0);
    assert!(strange(&[alone, other], &known), "the proxy has another one");
    let mine = socket(near, far, 0);
    assert!(strange(&[mine], &known), "of the proxy's user, and none of its legs");
    let dialled = InetSocket { state: SocketState::SYN_SENT, ..mine };
    assert!(strange(&[dialled], &known));
    context.legs.add(near, far);
    assert!(!strange(&[mine], &known) && !strange(&[dialled], &known));
    assert!(strange(&[alone], &known), "a leg is the proxy's user's");
}

#[test]
fn what_the_proxy_has_or_never_leaves_the_pod_is_not_strange() {
    let (known, _context) = known(&[]);
    let (near, far) = (at(POD, 40_000), at("10.77.1.9", 80));
    let app = socket(near, far, WORKLOAD);
    let taken = socket(at("127.0.0.1", names::OUTBOUND_PORT), near, 0);
    let waiting = InetSocket {
        state: SocketState::SYN_RECEIVED,
        uid: 0,
        inode: 0,
        ..socket(at(POD, names::OUTBOUND_PORT), near, WORKLOAD)
    };
    assert!(!strange(&[app, taken], &known));
    assert!(!strange(&[app, waiting], &known), "not taken yet");
    assert!(!strange(&[app, socket(far, near, 0)], &known), "both ends are here");
    for state in [SocketState::SYN_SENT, SocketState::CLOSE_WAIT, SocketState::LISTEN] {
        assert!(!strange(&[InetSocket { state, ..app }], &known), "{state:?}");
    }
    let health = socket(at(POD, names::HEALTH_PORT), at("10.77.1.1", 50_000), 0);
    assert!(!strange(&[health], &known));
    for remote in [POD, "127.0.0.1"] {
        assert!(!strange(&[socket(near, at(remote, 80), WORKLOAD)], &known), "{remote}");
    }
}

#[test]
fn a_listener_with_more_than_it_can_take_explains_everything() {
    let (known, _context) = known(&[]);
    let listener = InetSocket {
        state: SocketState::LISTEN,
        queues: [128, 128],
        ..socket(at("0.0.0.0", names::OUTBOUND_PORT), at("0.0.0.0", 0), 0)
    };
    assert!(Crowd::new(&[listener], &known).overrun);
    let free = InetSocket { queues: [127, 128], ..listener };
    assert!(!Crowd::new(&[free], &known).overrun);
    let others = InetSocket { local: at("0.0.0.0", 80), ..listener };
    assert!(!Crowd::new(&[others], &known).overrun, "the workload's");
}

#[test]
fn what_is_left_out_on_purpose_is_known_by_port_or_network() {
    let (known, _context) = known(&[
        ("OUTRIDER_PROXY_UNCAPTURED_PORTS", "8080"),
        ("OUTRIDER_PROXY_UNCAPTURED_NETWORKS", "10.96.0.0/12,fd00:96::/32"),
    ]);
    let left_out =
        |local: SocketAddr, remote, direction| known.uncaptured(&Ends { local, remote, direction });
    let near = at(POD, 40_000);
    assert_eq!(left_out(near, at("10.77.1.9", 8080), Direction::Outbound), Some(8080));
    assert_eq!(left_out(near, at("10.100.0.1", 443), Direction::Outbound), Some(443));
    assert_eq!(left_out(near, at("fd00:96::1", 443), Direction::Outbound), Some(443));
    assert_eq!(left_out(near, at("10.77.1.9", 443), Direction::Outbound), None);
    assert_eq!(left_out(at(POD, 8080), near, Direction::Inbound), Some(8080));
    assert_eq!(left_out(at(POD, 80), at("10.77.1.9", 8080), Direction::Inbound), None);
}

#[tokio::test(start_paused = true)]
async fn connections_that_begin_wait_a_second_and_not_too_many() {
    let (known, context) = known(&[]);
    let mut sockets = Sockets::open().unwrap();
    let mut openings = Openings::default();
    let count = u16::try_from(MAX_OPENINGS).unwrap() + 1;
    let syn = |port: u16, source: &str| Segment {
        source: at(source, port),
        target: at("10.77.1.9", 80),
        flags: 2,
        data: false,
        packet: &[],
    };
    for port in 1..=count {
        assert_eq!(openings.look(&syn(20_000 + port, POD), &known, &mut sockets), None);
        assert_eq!(openings.look(&syn(20_001, POD), &known, &mut sockets), None, "sent again");
    }
    assert_eq!(openings.overflow, 1);
    // One turns out to be the proxy's.
    context.legs.add(at(POD, 20_002), at("10.77.1.9", 80));
    let mut found = Vec::new();
    openings.due(&known, &mut sockets, |finding| found.push(finding));
    assert!(found.is_empty(), "a second has not passed");
    tokio::time::advance(std::time::Duration::from_millis(1100)).await;
    openings.due(&known, &mut sockets, |finding| found.push(finding));
    assert_eq!(found.len(), MAX_OPENINGS - 1);
    assert!(
        found
            .iter()
            .all(|finding| finding.trick == Trick::Connection)
    );
    found.clear();
    assert_eq!(openings.look(&syn(5, "10.77.1.77"), &known, &mut sockets), None);
    tokio::time::advance(std::time::Duration::from_millis(1100)).await;
    openings.due(&known, &mut sockets, |finding| found.push(finding));
    assert_eq!(found[0].trick, Trick::Forged, "not an address of the pod");
    assert_eq!(openings.undecided, 0);
}

/// So many connections of the workload to a server.
fn many(count: usize) -> impl Iterator<Item = InetSocket> {
    (0..count).map(|number| {
        let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
        socket(at(POD, 40_000), at(&format!("10.78.{high}.{low}"), 80), WORKLOAD)
    })
}

#[test]
fn connections_beyond_those_kept_in_mind_are_reported_again() {
    let (known, _context) = known(&[]);
    let mut scanner = Scanner::new(known).unwrap();
    let strangers = many(MAX_REPORTED + 1)
        .map(|socket| ((socket.local, socket.remote, socket.inode), socket))
        .collect();
    let mut look = || {
        let mut looked = Looked::default();
        scanner.judge(&strangers, &mut looked);
        (looked.findings.len(), looked.lasting.len(), looked.again)
    };
    assert_eq!(look(), (0, 0, true), "one that was just dialled may be honest");
    assert_eq!(look(), (MAX_REPORTED + 1, 0, false));
    // The one more is new each time, so it is looked at twice each time.
    assert_eq!(look(), (0, MAX_REPORTED, true));
    assert_eq!(look(), (1, MAX_REPORTED, false));
}

fn ends(socket: InetSocket) -> Ends {
    Ends { local: socket.local, remote: socket.remote, direction: Direction::Outbound }
}

#[tokio::test(start_paused = true)]
async fn no_more_connections_are_handed_over_than_that_and_all_are_condemned() {
    let (_known, context) = known(&[]);
    let protect = crate::packets::tests::all(Mode::Protect, PolicyAction::Deny);
    context.policy.store(protect.into());
    let mut bypass = Bypass::new(SharedContext::clone(&context), true).unwrap();
    for socket in many(MAX_HANDED + 1) {
        bypass.found(Finding::connection(Trick::Connection, ends(socket), None));
    }
    assert_eq!(bypass.handed.len(), MAX_HANDED);
    assert_eq!(bypass.take_condemned().len(), MAX_HANDED + 1);
    // One that is there stays there, and the others have their turn when its time is over.
    many(1).for_each(|socket| bypass.hand_over(ends(socket)));
    assert_eq!(bypass.handed.len(), MAX_HANDED);
    tokio::time::advance(HANDED).await;
    bypass.tick();
    assert!(bypass.handed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ports_left_out_are_said_once_and_up_to_a_number() {
    let (_known, context) = known(&[("OUTRIDER_PROXY_UNCAPTURED_NETWORKS", "10.78.0.0/16")]);
    let mut bypass = Bypass::new(SharedContext::clone(&context), true).unwrap();
    let left_out = |port: usize| {
        let remote = at("10.78.0.1", u16::try_from(port).unwrap());
        ends(socket(at(POD, 40_000), remote, WORKLOAD))
    };
    let ports = (1..=MAX_SAID + 1).chain(1..=MAX_SAID + 1);
    let findings = ports.map(|port| Finding::connection(Trick::Uncaptured, left_out(port), None));
    assert_eq!(findings.filter(|finding| bypass.is_news(finding)).count(), MAX_SAID);
    assert_eq!(bypass.said.len(), MAX_SAID);
}
