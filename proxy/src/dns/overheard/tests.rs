use outrider_model::IpProto;
use outrider_telemetry::Registry;

use super::*;
use crate::dns::testing::{answer, question};

const SERVER: &str = "10.96.0.10:53";
const OUT: (Side, bool) = (Side::Client, false);
const IN: (Side, bool) = (Side::Server, true);

fn key(port: u16) -> FlowKey {
    FlowKey {
        client: ([10, 77, 1, 5], port).into(),
        server: SERVER.parse().unwrap(),
        proto: IpProto::UDP,
        direction: Direction::Outbound,
    }
}

fn overheard() -> Overheard {
    let metrics = DnsMetrics::register(&Registry::default()).unwrap();
    Overheard::new(vec![SERVER.parse().unwrap()], metrics)
}

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The addresses learned from an answer to a question for a.example under id 7.
fn learned(
    overheard: &mut Overheard,
    key: &FlowKey,
    message: &[u8],
    now: u64,
) -> Option<Vec<(String, u32)>> {
    let (name, given) = overheard.hear(key, IN, message, second(now))?;
    assert_eq!(name.as_str(), "a.example");
    Some(
        given
            .iter()
            .map(|given| (given.address.to_string(), given.ttl))
            .collect(),
    )
}

fn asked() -> Overheard {
    let mut overheard = overheard();
    assert_eq!(overheard.hear(&key(4000), OUT, &question(7, "a.example"), second(1)), None);
    overheard
}

fn good() -> Vec<u8> {
    answer(&question(7, "a.example"), 0, [192, 0, 2, 7])
}

#[test]
fn an_answer_to_a_question_teaches_its_addresses_and_their_time() {
    let mut overheard = asked();
    let expected = Some(vec![("192.0.2.7".to_owned(), 60)]);
    assert_eq!(learned(&mut overheard, &key(4000), &good(), 2), expected);
    assert_eq!(learned(&mut overheard, &key(4000), &good(), 2), None, "the first one counts");
    assert!(overheard.asked.is_empty());
    assert_eq!(overheard.metrics.count(Transport::Wire, Outcome::Answered), 1);
}

#[test]
fn aliases_and_both_families_are_followed_in_any_order() {
    let mut message = question(7, "a.example");
    (message[2], message[3], message[7]) = (0x81, 0x80, 3);
    let cname = b"\xc0\x0c\0\x05\0\x01\0\0\0\x0a\0\x04\x01b\xc0\x0e";
    let a = b"\x01b\xc0\x0e\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
    let aaaa =
        b"\x01b\xc0\x0e\0\x1c\0\x01\0\0\0\x1e\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07";
    for order in [[&cname[..], a, aaaa], [aaaa, a, cname], [a, cname, aaaa]] {
        let mut overheard = asked();
        let whole = [&message[..], &order.concat()].concat();
        let mut found = learned(&mut overheard, &key(4000), &whole, 2).unwrap();
        found.sort();
        assert_eq!(found, [("192.0.2.7".to_owned(), 10), ("2001:db8::7".to_owned(), 10)]);
    }
}

#[test]
fn nothing_is_learned_from_what_nobody_asked_for() {
    let other_server = FlowKey { server: "10.96.0.11:53".parse().unwrap(), ..key(4000) };
    let inbound = FlowKey { direction: Direction::Inbound, ..key(4000) };
    let another_id = answer(&question(8, "a.example"), 0, [192, 0, 2, 7]);
    let another_name = answer(&question(7, "b.example"), 0, [192, 0, 2, 7]);
    let error = answer(&question(7, "a.example"), 2, [0; 4]);
    for (what, key, message) in [
        ("another port", key(4001), good()),
        ("another server", other_server, good()),
        ("the pod's own server", inbound, good()),
        ("another id", key(4000), another_id),
        ("another question", key(4000), another_name),
        ("a question", key(4000), question(7, "a.example")),
        ("an error", key(4000), error),
        ("nothing", key(4000), Vec::new()),
    ] {
        let heard = asked().hear(&key, IN, &message, second(2));
        assert_eq!(heard, None, "{what}");
    }
    assert_eq!(overheard().hear(&key(4000), IN, &good(), second(2)), None, "no question");
}

#[test]
fn an_answer_that_the_pod_itself_sends_is_none() {
    let mut overheard = asked();
    assert_eq!(overheard.hear(&key(4000), (Side::Server, false), &good(), second(2)), None);
    assert_eq!(overheard.metrics.strays(), 1);
    let mut overheard = self::overheard();
    overheard.hear(&key(4000), (Side::Client, true), &question(7, "a.example"), second(1));
    assert_eq!(
        learned(&mut overheard, &key(4000), &good(), 2),
        None,
        "nor a question from outside"
    );
}

#[test]
fn a_question_waits_for_so_long() {
    for (now, found) in [(10, true), (11, false)] {
        let mut overheard = asked();
        assert_eq!(learned(&mut overheard, &key(4000), &good(), now).is_some(), found, "{now}");
        let unanswered = overheard
            .metrics
            .count(Transport::Wire, Outcome::Unanswered);
        assert_eq!(unanswered, u64::from(!found));
    }
}

#[test]
fn who_guesses_ids_has_few_tries() {
    for (tries, found) in [(MAX_GUESSES - 1, true), (MAX_GUESSES, false)] {
        let mut overheard = asked();
        for id in 100..100 + u16::from(tries) {
            let guess = answer(&question(id, "a.example"), 0, [198, 51, 100, 1]);
            assert_eq!(learned(&mut overheard, &key(4000), &guess, 2), None);
        }
        assert_eq!(learned(&mut overheard, &key(4000), &good(), 2).is_some(), found, "{tries}");
    }
}

#[test]
fn questions_have_a_limit() {
    let mut overheard = asked();
    for port in 0..u16::try_from(MAX_ASKED).unwrap() {
        overheard.hear(&key(5_000 + port), OUT, &question(7, "a.example"), second(2));
    }
    assert_eq!(learned(&mut overheard, &key(4000), &good(), 2), None, "the oldest went");
    assert!(learned(&mut overheard, &key(5_000), &good(), 2).is_some());
    assert_eq!(overheard.metrics.count(Transport::Wire, Outcome::Overflow), 1);
    assert!(overheard.order.len() <= MAX_ASKED);
    let mut overheard = asked();
    for id in 0..2 * u16::try_from(MAX_PORT_ASKED).unwrap() {
        overheard.hear(&key(4000), OUT, &question(100 + id, "a.example"), second(2));
    }
    assert_eq!(overheard.asked[&(key(4000).client, key(4000).server)].len(), MAX_PORT_ASKED);
    assert!(learned(&mut overheard, &key(4000), &good(), 2).is_some());
}
