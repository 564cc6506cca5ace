use outrider_capture::{InetSocket, SocketState};

use super::{super::silent::Silent, *};

fn socket(local: &str, remote: &str, state: SocketState) -> InetSocket {
    InetSocket {
        proto: IpProto::TCP,
        state,
        local: at(local),
        remote: at(remote),
        interface: 0,
        uid: 4242,
        inode: 7,
        queues: [0, 0],
        bytes: None,
    }
}

/// A server in the pod, and a client of it that says nothing.
fn served() -> [InetSocket; 2] {
    [
        socket("0.0.0.0:50000", "0.0.0.0:0", SocketState::LISTEN),
        socket("10.77.1.5:50000", "10.77.1.9:4000", SocketState::ESTABLISHED),
    ]
}

fn silent(rig: &Rig) -> Silent {
    Silent::new(SharedContext::clone(&rig.context)).unwrap()
}

#[tokio::test]
async fn a_connection_that_is_seen_twice_and_never_heard_is_a_session() {
    let mut rig = Rig::new(all(Mode::Monitor, PolicyAction::Allow));
    let mut silent = silent(&rig);
    silent.take(&served(), &mut rig.watch);
    assert_eq!(rig.context.telemetry.flows().len(), 0, "it may have just begun");
    for _ in 0..3 {
        silent.take(&served(), &mut rig.watch);
        assert_eq!(rig.context.telemetry.flows().len(), 1);
    }
    rig.context.telemetry.flows().for_each(|flow| {
        assert!(flow.is_established());
        let FlowKey { server, direction, .. } = *flow.key();
        assert_eq!((server, direction), (at("10.77.1.5:50000"), Direction::Inbound), "who listens");
    });
    assert!(rig.watch.take_condemned().is_empty());
    rig.swap(all(Mode::Protect, PolicyAction::Deny));
    let condemned = rig.watch.take_condemned();
    assert_eq!(condemned.len(), 1);
    assert_eq!(rig.watch.key(condemned[0]).unwrap().client, at("10.77.1.9:4000"));
}

#[tokio::test]
async fn what_is_denied_is_condemned_as_soon_as_it_is_found() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    let mut silent = silent(&rig);
    for _ in 0..2 {
        assert!(rig.watch.take_condemned().is_empty());
        silent.take(&served(), &mut rig.watch);
    }
    assert_eq!(rig.watch.take_condemned().len(), 1);
}

#[tokio::test]
async fn what_is_known_is_gone_or_stays_in_the_pod_is_left_alone() {
    let mut rig = Rig::new(all(Mode::Monitor, PolicyAction::Allow));
    let mut silent = silent(&rig);
    let talk = Talk::new(at("10.77.1.9:4000"), at("10.77.1.5:50000")).open();
    silent.take(&served(), &mut rig.watch);
    talk.packets.iter().for_each(|packet| rig.show(packet));
    silent.take(&served(), &mut rig.watch);
    assert_eq!(rig.context.telemetry.flows().opened(), 1, "its first packets were late");
    let (open, closed) = (SocketState::ESTABLISHED, SocketState::CLOSE_WAIT);
    let others = [
        socket("10.77.1.5:80", "10.77.1.5:4000", open),
        socket("127.0.0.1:80", "10.77.1.9:4000", open),
        socket("10.77.1.77:80", "10.77.1.9:4000", open),
    ];
    let ended = [socket("10.77.1.5:40000", "10.77.1.9:80", closed)];
    for seen in [&others[..], &others, &ended, &[], &ended] {
        silent.take(seen, &mut rig.watch);
    }
    assert_eq!(rig.context.telemetry.flows().opened(), 1);
    silent.take(&ended, &mut rig.watch);
    assert_eq!(rig.context.telemetry.flows().opened(), 2, "half of it is open");
}

#[tokio::test]
async fn a_full_table_is_counted_and_keeps_what_it_has() {
    let limits = Limits { flows: 1, ..Limits::default() };
    let mut rig = Rig::with(all(Mode::Monitor, PolicyAction::Allow), limits);
    let mut silent = silent(&rig);
    rig.show(&udp(PEER, POD, QUESTION));
    for _ in 0..2 {
        silent.take(&served(), &mut rig.watch);
    }
    assert_eq!(rig.context.packets.bypass().unread.get(), 1);
    assert_eq!(rig.watch.counters().evicted, 0);
}
