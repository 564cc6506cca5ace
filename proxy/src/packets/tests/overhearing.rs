//! Names that the tap overhears.

use super::*;

const SERVER: &str = "10.77.1.9:53";
const CLIENT: &str = "10.77.1.5:4000";
/// An address for the question.
const ANSWER: &[u8] = b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\
    \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07";

/// What the name of an address is after the tap has shown a question and an answer.
fn label(more: &[(&'static str, &str)], answered: outrider_model::Direction) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let servers = ("OUTRIDER_PROXY_DNS_SERVERS", "10.77.1.9");
    let more: Vec<_> = [servers].into_iter().chain(more.iter().copied()).collect();
    let (context, relay, _) = assemble(settings(dir.path(), &more));
    let scene = Scene {
        telemetry: context.telemetry.clone(),
        law: relay.law().clone(),
        dpi: relay.dpi().clone(),
        metering: Arc::clone(&context.metering),
    };
    let mut watch = Watch::new(context.clone(), scene, Limits::default());
    let packets = [
        (Direction::Outbound, udp(CLIENT, SERVER, QUESTION)),
        (answered, udp(SERVER, CLIENT, ANSWER)),
    ];
    for (direction, packet) in packets {
        let frame = outrider_capture::Frame {
            at: Duration::ZERO,
            interface: 2,
            direction,
            foreign: false,
            link: outrider_capture::Link::Raw,
            loopback: false,
            vlan: None,
            unfinished_checksum: false,
            bytes: &packet,
            wire: packet.len(),
        };
        watch.frame(Duration::from_secs(1), &frame);
    }
    context.names.label([192, 0, 2, 7].into())
}

#[test]
fn answers_on_the_wire_give_names_where_questions_do_not_come_to_the_proxy() {
    assert_eq!(label(&[], Direction::Inbound).as_deref(), Some("a"));
    assert_eq!(label(&[("OUTRIDER_PROXY_DNS", "on")], Direction::Inbound), None);
}

#[test]
fn an_answer_that_a_workload_puts_on_the_wire_gives_none() {
    assert_eq!(label(&[], Direction::Outbound), None);
}
