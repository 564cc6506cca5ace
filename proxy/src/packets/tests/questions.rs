//! What becomes of packets that wait in the kernel.

use super::*;
use crate::identity::Identity;

const DNS_ONLY: &[(AppId, PolicyAction)] = &[(AppId::DNS, PolicyAction::Allow)];

#[test]
fn where_nothing_is_enforced_everything_passes_at_once() {
    for mode in [Mode::Discover, Mode::Monitor] {
        let mut rig = Rig::new(all(mode, PolicyAction::Deny));
        assert_eq!(rig.queue(&udp(PEER, POD, b"?"), LOCAL_IN), Answer::Allow, "{mode}");
        let unreadable =
            rig.questions
                .ask(&rig.scene, &rig.context.identity.load(), true, None, rig.now);
        assert_eq!(unreadable, Answer::Pass);
    }
}

#[test]
fn quarantine_stops_everything_in_every_mode() {
    let quarantined = PolicyView { quarantined: true, ..all(Mode::Discover, PolicyAction::Allow) };
    let mut rig = Rig::new(quarantined);
    assert_eq!(rig.queue(&udp(PEER, POD, QUESTION), LOCAL_IN), Answer::Drop);
    assert_eq!(rig.queue(&udp(POD, PEER, QUESTION), LOCAL_OUT), Answer::Drop);
}

#[test]
fn an_address_that_decides_needs_one_packet() {
    for (action, answer) in
        [(PolicyAction::Allow, Answer::Allow), (PolicyAction::Deny, Answer::Drop)]
    {
        let mut rig = Rig::new(all(Mode::Protect, action));
        for packet in [udp(PEER, POD, b"?"), udp("[fd77:1::9]:1", "[fd77:1::5]:2", b"?")] {
            assert_eq!(rig.queue(&packet, LOCAL_IN), answer);
        }
    }
}

#[test]
fn a_datagram_is_read_before_it_passes() {
    let mut rig = Rig::new(apps(Mode::Protect, DNS_ONLY));
    assert_eq!(rig.queue(&udp(PEER, POD, QUESTION), LOCAL_IN), Answer::Allow);
    let sip = b"OPTIONS sip:a@example.test SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n";
    let other = udp("10.77.1.9:4001", "10.77.1.5:5060", sip);
    for _ in 0..3 {
        assert_eq!(rig.queue(&other, LOCAL_IN), Answer::Drop, "nothing of it passes");
    }
}

#[test]
fn an_address_of_the_pod_that_is_new_is_judged_all_the_same() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    let inward = udp("10.77.1.9:4000", "10.77.1.77:9999", b"?");
    let outward = udp("10.77.1.77:4000", "10.77.1.9:9999", b"?");
    assert_eq!(rig.queue(&inward, LOCAL_IN), Answer::Drop);
    assert_eq!(rig.queue(&outward, LOCAL_OUT), Answer::Drop);
    let spoofed = udp("10.77.1.5:4000", "10.77.1.5:9999", b"?");
    assert_eq!(rig.queue(&spoofed, LOCAL_IN), Answer::Drop, "it did not come by loopback");
    assert!(rig.rows().is_empty(), "not known to be the pod's");
    let addresses = ["10.77.1.5", "10.77.1.77"].map(|ip| ip.parse().unwrap());
    rig.context
        .identity
        .store(Identity::new(Vec::new(), addresses).into());
    rig.pass(1);
    rig.queue(&inward, LOCAL_IN);
    let (key, row) = rig.row();
    assert_eq!((key.direction, row.violations), (Direction::Inbound, 1), "now it is");
}

#[test]
fn what_nobody_recognises_passes_twice_and_then_meets_the_default() {
    let mut rig = Rig::new(apps(Mode::Protect, DNS_ONLY));
    let packet = udp("10.77.1.9:4000", "10.77.1.5:9999", b"?????");
    let answers: Vec<_> = (0..5).map(|_| rig.queue(&packet, LOCAL_IN)).collect();
    assert_eq!(answers, [Answer::Pass, Answer::Pass, Answer::Drop, Answer::Drop, Answer::Drop]);
    let violations: u32 = rig.rows().iter().map(|(_, row)| row.violations).sum();
    assert_eq!(violations, 1, "tap and queue agree");
}

#[test]
fn an_application_that_cannot_change_the_answer_is_not_waited_for() {
    let any = [(AppId::DNS, PolicyAction::Allow), (AppId::ANY, PolicyAction::Allow)];
    let mut rig = Rig::new(apps(Mode::Protect, &any));
    let packet = udp("10.77.1.9:4000", "10.77.1.5:9999", b"?????");
    assert_eq!(rig.queue(&packet, LOCAL_IN), Answer::Allow);
}

#[test]
fn a_threat_stops_its_packet() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    let huge = build::echo(at(PEER).ip(), at(POD).ip(), false, (7, 1), &[0; 33_000]);
    assert_eq!(rig.queue(&huge, LOCAL_IN), Answer::Drop);
    assert_eq!(rig.queue(&echo(false, 2), LOCAL_IN), Answer::Pass, "each is asked about");
    let looped = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01";
    assert_eq!(rig.queue(&udp(PEER, POD, looped), LOCAL_IN), Answer::Drop);
}

#[test]
fn what_keeps_the_network_up_is_never_asked_about_policy() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    let many = udp("10.77.1.5:5353", "224.0.0.251:5353", QUESTION);
    assert_eq!(rig.queue(&many, LOCAL_OUT), Answer::Allow);
    let error = build::ip(at(PEER).ip(), at(POD).ip(), 1, &[3, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.queue(&error, LOCAL_IN), Answer::Pass, "its mark would be another flow's");
    let torn = &udp(PEER, POD, QUESTION)[..24];
    assert_eq!(rig.queue(torn, LOCAL_IN), Answer::Drop, "what cannot be read");
}

#[test]
fn a_reply_is_judged_in_the_direction_of_its_flow() {
    let outbound =
        RuleSpec { direction: Direction::Outbound, ..rule(None, PolicyAction::Allow, &[]) };
    let spec = PolicySpec {
        default_action: PolicyAction::Deny,
        inbound: true,
        outbound: true,
        rules: vec![outbound],
        grace: false,
    };
    let snapshot = Snapshot::compile(Some(&spec), &Network::default()).unwrap();
    let mut rig = Rig::new(PolicyView { snapshot, ..all(Mode::Protect, PolicyAction::Allow) });
    let (asks, answers) = (
        udp("10.77.1.5:4000", "10.77.1.9:9999", b"?"),
        udp("10.77.1.9:9999", "10.77.1.5:4000", b"!"),
    );
    assert_eq!(rig.queue(&asks, LOCAL_OUT), Answer::Allow);
    assert_eq!(rig.queue(&answers, LOCAL_IN), Answer::Allow, "the kernel forgot the verdict");
    assert_eq!(rig.queue(&udp("10.77.1.9:1", "10.77.1.5:2", b"?"), LOCAL_IN), Answer::Drop);
}

#[test]
fn each_packet_is_counted_once_whoever_saw_it() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Deny));
    let (inward, outward) =
        (udp(PEER, POD, QUESTION), udp("10.77.1.5:4000", "10.77.1.9:53", QUESTION));
    for _ in 0..3 {
        assert_eq!(rig.queue(&inward, LOCAL_IN), Answer::Drop);
        assert_eq!(rig.queue(&outward, LOCAL_OUT), Answer::Drop);
    }
    assert_eq!(rig.watch.counters().udp, 6);
    let mut rows = rig.rows();
    rows.sort_by_key(|(key, _)| key.direction.label());
    let violations: Vec<_> = rows
        .iter()
        .map(|(key, row)| (key.direction, row.violations))
        .collect();
    assert_eq!(violations, [(Direction::Inbound, 1), (Direction::Outbound, 1)]);
}

#[test]
fn a_swap_is_felt_by_the_next_packet() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    let packet = udp(PEER, POD, QUESTION);
    assert_eq!(rig.queue(&packet, LOCAL_IN), Answer::Allow);
    rig.swap(all(Mode::Protect, PolicyAction::Deny));
    assert_eq!(rig.queue(&packet, LOCAL_IN), Answer::Drop);
    rig.swap(all(Mode::Protect, PolicyAction::Allow));
    assert_eq!(rig.queue(&packet, LOCAL_IN), Answer::Allow);
}

#[test]
fn questions_are_bounded_and_forgotten() {
    let mut rig = Rig::new(apps(Mode::Protect, DNS_ONLY));
    let unknown = |n: usize| {
        let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
        udp(&format!("10.77.{high}.{low}:4000"), "10.77.1.5:9999", b"?????")
    };
    let (most, pod) = (super::super::questions::MAX_RECENT, rig.context.identity.load_full());
    for n in 0..3 * most {
        let packet = unknown(n + 512);
        let peek = rig.watch.peek(&packet, packet.len());
        let answer = rig
            .questions
            .ask(&rig.scene, &pod, true, peek.as_ref(), rig.now);
        assert_eq!(answer, Answer::Pass);
        assert!(rig.questions.len() <= 2 * most);
    }
    rig.pass(31);
    rig.pass(31);
    assert_eq!(rig.questions.len(), 0);
}

#[test]
fn the_kernel_is_asked_to_keep_what_is_settled() {
    assert_eq!(names::VERDICT_MARK & names::OWN_MARK, 0);
    assert_eq!(names::VERDICT_MARK.count_ones(), 1, "other bits belong to others");
}
