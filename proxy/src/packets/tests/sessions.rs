//! What sessions come of packets.

use super::{super::book::MAX_HELD, *};

#[test]
fn an_answered_question_is_a_session_of_its_application() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    rig.show(&udp(PEER, POD, QUESTION));
    rig.show(&udp(POD, PEER, QUESTION));
    let (key, row) = rig.row();
    assert_eq!((key.client, key.server, key.port), (at(PEER).ip(), at(POD).ip(), 53));
    assert_eq!((key.app, key.direction), (AppId::DNS, Direction::Inbound));
    assert_eq!((row.sessions, row.violations), (1, 0));
    assert_eq!((row.bytes_client, row.bytes_server), (19, 19));
    let live = rig.context.telemetry.flows().by_proto();
    assert_eq!((live.udp, live.total()), (1, 1));
    rig.pass(40);
    assert_eq!(rig.context.telemetry.flows().len(), 0, "silent for longer than UDP may be");
    assert!(rig.rows().is_empty(), "everything was said");
}

#[test]
fn a_port_that_answers_is_served_and_known_as_a_server_from_then_on() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    let ports = |rig: &Rig| rig.context.telemetry.apps().lock().iter().count();
    rig.show(&udp(PEER, "10.77.1.5:9999", QUESTION));
    assert_eq!(ports(&rig), 0, "anybody may send to any port");
    rig.show(&udp("10.77.1.5:9999", PEER, QUESTION));
    assert_eq!(ports(&rig), 1);
    rig.watch.learn_servers();
    rig.pass(40);
    drop(rig.rows());
    rig.show(&udp("10.77.1.5:9999", "10.77.1.9:4444", QUESTION));
    rig.pass(40);
    let (key, _) = rig.row();
    assert_eq!((key.direction, key.port), (Direction::Inbound, 9999));
}

#[test]
fn the_pod_is_the_client_of_what_it_asks() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    rig.show(&udp("[fd77:1::5]:4000", "[fd77:1::9]:53", QUESTION));
    rig.show(&udp("[fd77:1::9]:53", "[fd77:1::5]:4000", QUESTION));
    let (key, _) = rig.row();
    assert_eq!(key.direction, Direction::Outbound);
    assert_eq!(key.server, at("[fd77:1::9]:53").ip());
}

#[test]
fn a_violation_is_reported_once_in_each_mode() {
    for (mode, action, violations) in [
        (Mode::Discover, PolicyAction::Learn, 0),
        (Mode::Monitor, PolicyAction::Violate, 1),
        (Mode::Protect, PolicyAction::Deny, 1),
    ] {
        let mut rig = Rig::new(view(mode, Vec::new()));
        for _ in 0..5 {
            rig.show(&udp(PEER, POD, QUESTION));
            rig.context.telemetry.settle();
        }
        rig.pass(40);
        let rows = rig.rows();
        let total: u32 = rows.iter().map(|(_, row)| row.violations).sum();
        assert_eq!(total, violations, "{mode}: {rows:#?}");
        assert!(rows.iter().all(|(_, row)| row.action == action), "{mode}: {rows:#?}");
    }
}

#[test]
fn a_denied_flow_is_no_session_and_was_not_checked() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    rig.show(&udp(PEER, POD, b"whatever"));
    let (key, row) = rig.row();
    assert_eq!((key.app, key.rule), (AppId::NOT_CHECKED, RULE));
    assert_eq!((row.sessions, row.violations, row.bytes()), (0, 1, 0));
}

#[test]
fn a_denial_that_nobody_can_carry_out_is_a_violation() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    rig.watch.set_gates(Gates::default());
    rig.show(&udp(PEER, POD, QUESTION));
    let (_, row) = rig.row();
    assert_eq!((row.action, row.violations), (PolicyAction::Violate, 1));
    assert_eq!((row.sessions, row.bytes_client), (1, 19), "it went on");
}

#[test]
fn a_swap_denies_a_live_flow_and_allows_it_again() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    rig.show(&udp(PEER, POD, QUESTION));
    rig.show(&udp(POD, PEER, QUESTION));
    assert_eq!(rig.row().1.action, PolicyAction::Allow);
    rig.swap(all(Mode::Protect, PolicyAction::Deny));
    rig.show(&udp(PEER, POD, QUESTION));
    let (_, row) = rig.row();
    assert_eq!((row.action, row.violations), (PolicyAction::Deny, 1));
    assert_eq!(row.bytes(), 0, "what is stopped is not counted");
    rig.swap(all(Mode::Protect, PolicyAction::Allow));
    rig.show(&udp(PEER, POD, QUESTION));
    let (_, row) = rig.row();
    assert_eq!((row.action, row.bytes_client, row.sessions), (PolicyAction::Allow, 19, 0));
}

#[test]
fn an_echo_is_a_session_once_it_is_answered() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    rig.show(&echo(false, 1));
    assert!(rig.rows().is_empty());
    rig.show(&echo(true, 1));
    let (key, row) = rig.row();
    assert_eq!((key.proto, key.port, row.sessions), (IpProto::ICMP, 0, 1));
    assert_eq!(rig.context.telemetry.flows().by_proto().icmp, 1);

    let mut silent = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    silent.show(&echo(false, 1));
    silent.pass(10);
    assert!(silent.rows().is_empty(), "nobody answered");
}

#[test]
fn what_goes_to_many_is_counted_and_never_judged() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    rig.show(&udp("10.77.1.5:5353", "224.0.0.251:5353", QUESTION));
    rig.show(&udp("10.77.1.5:68", "255.255.255.255:67", b"x"));
    assert!(rig.rows().is_empty());
    assert_eq!(rig.context.telemetry.flows().len(), 0);
    assert_eq!(rig.watch.counters().udp, 2);
    let text = rig.context.registry.expose().unwrap();
    assert!(text.contains(r#"outrider_packets_ignored_total{reason="shared"} 2"#), "{text}");
}

#[test]
fn what_is_neither_tcp_nor_udp_is_unidentified_at_once() {
    let mut rig =
        Rig::new(view(Mode::Protect, vec![rule(Some(IpProto::SCTP), PolicyAction::Allow, &[])]));
    rig.show(&build::ip(
        at(PEER).ip(),
        at(POD).ip(),
        132,
        &[0x0f, 0xa0, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0],
    ));
    let (key, row) = rig.row();
    assert_eq!((key.proto, key.port, key.rule), (IpProto::SCTP, 53, RULE));
    assert_eq!((row.sessions, row.action), (1, PolicyAction::Allow));
    assert_eq!(rig.context.telemetry.flows().by_proto().other, 1);
}

#[test]
fn a_finding_is_a_threat_with_its_packet() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    let (peer, pod) = (at(PEER).ip(), at(POD).ip());
    let huge = build::echo(peer, pod, false, (7, 1), &[0; 33_000]);
    rig.show(&huge);
    let mut threats = rig.context.telemetry.threats().lock();
    let threat = threats.take(0).0.pop().unwrap();
    assert_eq!((threat.id, threat.proto), (ThreatId::PING_DEATH, IpProto::ICMP));
    assert!(threat.enforced && threat.stopped && threat.is_packet);
    assert_eq!(threat.evidence[..20], huge[..20]);
    assert_eq!(threat.length, huge.len());
    assert!(threats.take(0).0.is_empty(), "one packet, one threat");
}

#[test]
fn a_threat_behind_the_verdict_is_reported_and_not_stopped() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    rig.show(&echo(false, 1));
    let (peer, pod) = (at(PEER).ip(), at(POD).ip());
    rig.show(&build::echo(peer, pod, false, (7, 2), &[0; 33_000]));
    let threats = rig.context.telemetry.threats().lock().take(0).0;
    let [threat] = &threats[..] else { panic!("{threats:?}") };
    assert!(threat.enforced && !threat.stopped);
}

#[test]
fn a_flow_beyond_the_cap_ends_another() {
    let limits = Limits { flows: 4, ..Limits::default() };
    let mut rig = Rig::with(all(Mode::Discover, PolicyAction::Learn), limits);
    for port in 1..=10 {
        rig.show(&udp(&format!("10.77.1.9:{port}"), POD, QUESTION));
    }
    assert_eq!(rig.context.telemetry.flows().len(), 4);
    assert_eq!(rig.row().1.sessions, 10, "those that went are reported");
}

#[test]
fn a_session_that_holds_too_much_is_not_read_on_and_what_ends_gives_back() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    let unread = |rig: &Rig| {
        let text = rig.context.registry.expose().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("outrider_packets_unread_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let half = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'a'; 15_000]].concat();
    let pod = at("10.77.1.5:8080");
    let flows = u16::try_from(MAX_HELD / 15_000 + 40).unwrap();
    for port in 1..=flows {
        let peer = SocketAddr::new(at(PEER).ip(), 1024 + port);
        let talk = Talk::new(peer, pod).open().client(&half);
        talk.packets.iter().for_each(|packet| rig.show(packet));
    }
    let over = unread(&rig);
    assert!((1..u64::from(flows)).contains(&over), "{over} of {flows}");
    rig.pass(3_600);
    assert_eq!(rig.context.telemetry.flows().len(), 0);
    let talk = Talk::new(at(PEER), pod).open().client(&half);
    talk.packets.iter().for_each(|packet| rig.show(packet));
    assert_eq!(unread(&rig), over, "there is room again");
}

#[test]
fn a_cleared_session_ends_and_its_next_packet_begins_another() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    rig.show(&udp(PEER, POD, QUESTION));
    rig.context
        .telemetry
        .flows()
        .for_each(|flow| flow.cut(CutReason::Clear));
    rig.pass(1);
    assert_eq!(rig.context.telemetry.flows().len(), 0);
    rig.show(&udp(PEER, POD, QUESTION));
    assert_eq!(rig.context.telemetry.flows().len(), 1);
    assert_eq!(rig.context.telemetry.flows().opened(), 2);
}

#[test]
fn the_end_of_the_thread_ends_and_reports_every_session() {
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    rig.show(&udp(PEER, POD, QUESTION));
    rig.show(&udp(POD, PEER, QUESTION));
    rig.watch.finish();
    assert_eq!(rig.context.telemetry.flows().len(), 0);
    assert_eq!(rig.row().1.sessions, 1);
    let text = rig.context.registry.expose().unwrap();
    let cut = r#"outrider_flows_closed_total{direction="inbound",outcome="cut"} 1"#;
    assert!(text.contains(cut), "{text}");
}

#[test]
fn a_connection_that_nobody_holds_is_read_and_condemned() {
    let (peer, pod) = (at("10.77.1.9:4000"), at("10.77.1.5:8080"));
    let talk = Talk::new(peer, pod)
        .open()
        .client(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let mut rig = Rig::new(apps(Mode::Protect, &[(AppId::HTTP, PolicyAction::Allow)]));
    talk.packets.iter().for_each(|packet| rig.show(packet));
    let (key, row) = rig.row();
    assert_eq!((key.app, row.sessions), (AppId::HTTP, 1));
    assert_eq!(row.names.host.as_deref(), Some("shop.test"));
    assert!(rig.watch.take_condemned().is_empty());
    rig.swap(apps(Mode::Protect, &[(AppId::REDIS, PolicyAction::Allow)]));
    let condemned = rig.watch.take_condemned();
    assert_eq!(condemned.len(), 1);
    assert!(rig.watch.engine().tcp(condemned[0]).is_some(), "its place is known");
}

#[test]
fn a_connection_without_its_beginning_is_known_by_what_the_client_says_next() {
    let (peer, pod) = (at("10.77.1.9:40000"), at("10.77.1.5:8080"));
    let talk = Talk::new(peer, pod)
        .open()
        .server(b"of an answer that began before")
        .client(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    talk.packets[3..].iter().for_each(|packet| rig.show(packet));
    rig.context.telemetry.flows().for_each(|flow| {
        assert_eq!(flow.identification(), Identification::Known(AppId::HTTP));
        assert!(flow.is_established());
    });
    assert_eq!(rig.context.telemetry.flows().len(), 1);
}

#[test]
fn rejudging_leaves_sessions_to_their_own_thread() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    rig.show(&udp(PEER, POD, QUESTION));
    rig.swap(all(Mode::Protect, PolicyAction::Deny));
    rig.context.telemetry.flows().for_each(|flow| {
        assert_eq!(flow.cut_reason(), None);
        assert_eq!(flow.decision().action, PolicyAction::Deny);
    });
    assert_eq!(rig.relay.cut_all(), 0, "a drain of relayed flows");
}

#[test]
fn a_frame_of_a_vlan_is_taken_where_it_has_no_tag() {
    let packet = udp(PEER, POD, QUESTION);
    let mut rig = Rig::new(all(Mode::Discover, PolicyAction::Learn));
    let mut show = |bytes: &[u8], vlan| {
        let frame = outrider_capture::Frame {
            at: Duration::ZERO,
            interface: 2,
            direction: Direction::Inbound,
            foreign: false,
            link: outrider_capture::Link::Ethernet,
            loopback: false,
            vlan,
            unfinished_checksum: false,
            bytes,
            wire: bytes.len(),
        };
        rig.watch.frame(Duration::from_secs(1), &frame);
    };
    show(&build::tagged(&packet, &[5]), Some(5));
    show(&build::tagged(&packet, &[5]), None);
    show(&build::ethernet(&packet), None);
    show(&build::tagged(&packet, &[0]), Some(0));
    assert_eq!(rig.watch.counters().udp, 2, "without a tag, and with one that means nothing");
    assert_eq!(rig.row().1.bytes_client, 38);
}
