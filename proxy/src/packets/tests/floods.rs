//! What is too much, seen and stopped.

use outrider_telemetry::unix_seconds;

use super::*;

/// Threats that were logged: which, and whether they were stopped.
fn threats(rig: &Rig) -> Vec<(ThreatId, bool)> {
    let (reports, _) = rig.context.telemetry.threats().lock().take(unix_seconds());
    reports
        .iter()
        .map(|report| (report.id, report.stopped))
        .collect()
}

fn syn(port: u16) -> Vec<u8> {
    let (peer, pod) = (at(PEER).ip(), at(POD).ip());
    build::ip(peer, pod, 6, &build::tcp((port, 80), (1, 0), 2, b""))
}

#[test]
fn a_flood_of_pings_is_dropped_from_its_limit_on() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    let answers: Vec<_> = (0..400)
        .map(|sequence| rig.queue(&echo(false, sequence), LOCAL_IN))
        .collect();
    let passed = answers
        .iter()
        .take_while(|answer| **answer == Answer::Pass)
        .count();
    assert!((90..=100).contains(&passed), "{passed} passed");
    assert!(
        answers[passed..]
            .iter()
            .all(|answer| *answer == Answer::Drop)
    );
    assert_eq!(threats(&rig), [(ThreatId::ICMP_FLOOD, true)]);
    assert_eq!(rig.queue(&udp(PEER, POD, QUESTION), LOCAL_IN), Answer::Allow, "not ICMP");
}

#[test]
fn where_nothing_is_enforced_a_flood_is_only_reported() {
    for mode in [Mode::Discover, Mode::Monitor] {
        let mut rig = Rig::new(all(mode, PolicyAction::Allow));
        for sequence in 0..400 {
            assert_eq!(rig.queue(&echo(false, sequence), LOCAL_IN), Answer::Allow);
        }
        assert_eq!(threats(&rig), [(ThreatId::ICMP_FLOOD, false)]);
    }
}

#[test]
fn connections_beyond_the_limit_of_a_source_are_condemned() {
    let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
    for port in 1..=700 {
        rig.show(&syn(port));
    }
    assert!(rig.watch.take_condemned().is_empty());
    for port in 701..=2_000 {
        rig.show(&syn(port));
    }
    assert!(rig.watch.take_condemned().len() > 1_000);
    assert_eq!(threats(&rig), [(ThreatId::SYN_FLOOD, true)]);
}

#[test]
fn what_is_never_answered_is_a_scan_and_what_is_answered_is_none() {
    for (answered, expected) in [(false, vec![(ThreatId::PORT_SCAN, false)]), (true, vec![])] {
        let mut rig = Rig::new(all(Mode::Protect, PolicyAction::Allow));
        for port in 1..=60 {
            let target = format!("10.77.1.5:{port}");
            rig.show(&udp(PEER, &target, b"?"));
            if answered {
                rig.show(&udp(&target, PEER, b"!"));
            }
        }
        rig.pass(60);
        assert_eq!(threats(&rig), expected);
    }
}
