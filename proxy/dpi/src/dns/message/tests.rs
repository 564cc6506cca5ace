//! The reader beside hickory's, over messages that hickory wrote and over any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, SVCB,
            svcb::{IpHint, SvcParamKey, SvcParamValue},
        },
    },
};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn v6(last: u16) -> IpAddr {
    IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

fn address(owner: &str, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(name(owner), ttl, data)
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

/// An answer about a name, as a server writes it: names compressed.
fn answer(about: &str, answers: Vec<Record>, extras: Vec<Record>) -> Vec<u8> {
    let mut message = Message::response(7, hickory_proto::op::OpCode::Query);
    message.add_query(Query::query(name(about), RecordType::A));
    message.add_answers(answers);
    message.add_additionals(extras);
    message.to_vec().unwrap()
}

fn given_to(about: &str, answers: Vec<Record>) -> Vec<(IpAddr, u32)> {
    pairs(&answer(about, answers, Vec::new()))
}

fn pairs(message: &[u8]) -> Vec<(IpAddr, u32)> {
    given(message)
        .iter()
        .map(|given| (given.address, given.ttl))
        .collect()
}

#[test]
fn reads_header_and_question() {
    let message = answer("WWW.Example.COM.", Vec::new(), Vec::new());
    let header = DnsHeader::read(&message).unwrap();
    assert!(header.is_answer() && !header.is_cut());
    assert_eq!((header.id, header.questions, header.rcode()), (7, 1, 0));
    let (question, end) = DnsQuestion::read(&message).unwrap();
    assert_eq!(question.name.text().as_deref(), Some("www.example.com"));
    assert_eq!((question.kind, question.class, end), (1, 1, message.len()));
    for cut in 0..end {
        assert_eq!(DnsQuestion::read(&message[..cut]), None, "cut at {cut}");
    }
}

#[test]
fn finds_addresses_whatever_their_family_and_case() {
    let records = vec![address("A.example.", 60, v4(1)), address("a.EXAMPLE.", 30, v6(1))];
    assert_eq!(given_to("a.Example.", records), [(v4(1), 60), (v6(1), 30)]);
}

#[test]
fn follows_aliases_in_any_order_with_the_least_time() {
    let mut records = vec![
        alias("www.example.", 300, "a.cdn.example."),
        alias("a.cdn.example.", 20, "b.cdn.example."),
        address("b.cdn.example.", 60, v4(1)),
        address("b.cdn.example.", 10, v4(2)),
        address("other.example.", 60, v4(3)),
    ];
    assert_eq!(given_to("www.example.", records.clone()), [(v4(1), 20), (v4(2), 10)]);
    records.reverse();
    assert_eq!(given_to("www.example.", records), [(v4(2), 10), (v4(1), 20)]);
}

#[test]
fn gives_the_name_asked_for_only_what_is_its_own() {
    let stray = vec![address("trusted.example.", 60, v4(9)), alias("x.example.", 60, "y.example.")];
    assert_eq!(given_to("a.example.", stray), []);
    let extra = answer("a.example.", Vec::new(), vec![address("a.example.", 60, v4(9))]);
    assert_eq!(pairs(&extra), []);
}

#[test]
fn aliases_without_end_end() {
    let circle = vec![alias("a.example.", 5, "b.example."), alias("b.example.", 5, "a.example.")];
    assert_eq!(given_to("a.example.", circle), []);
    let link = |at: usize| alias(&format!("n{at}.example."), 9, &format!("n{}.example.", at + 1));
    for (links, found) in [(MAX_CHAIN, 1), (MAX_CHAIN + 1, 0)] {
        let mut chain: Vec<_> = (0..links).map(link).collect();
        chain.push(address(&format!("n{links}.example."), 9, v4(1)));
        assert_eq!(given_to("n0.example.", chain).len(), found, "{links} links");
    }
}

#[test]
fn takes_the_hints_of_services_and_the_addresses_of_their_targets() {
    let hints = vec![
        (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(vec![A(Ipv4Addr::new(192, 0, 2, 1))])),
        ),
        (
            SvcParamKey::Ipv6Hint,
            SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::1".parse().unwrap())])),
        ),
    ];
    let service = |target: &str| RData::HTTPS(HTTPS(SVCB::new(1, name(target), hints.clone())));
    let own = vec![Record::from_rdata(name("a.example."), 40, service("."))];
    assert_eq!(given_to("a.example.", own), [(v4(1), 40), (v6(1), 40)]);
    let elsewhere = Record::from_rdata(name("a.example."), 40, service("b.example."));
    let extras = vec![address("b.example.", 20, v4(2)), address("c.example.", 20, v4(3))];
    let found = pairs(&answer("a.example.", vec![elsewhere], extras));
    assert_eq!(found, [(v4(1), 40), (v6(1), 40), (v4(2), 20)]);
}

#[test]
fn a_service_name_ends_in_its_host() {
    let message = answer("_8443._https.www.example.", Vec::new(), Vec::new());
    let (question, _) = DnsQuestion::read(&message).unwrap();
    assert_eq!(question.name.without_service().text().as_deref(), Some("www.example"));
    let plain = answer("www._odd.example.", Vec::new(), Vec::new());
    let (question, _) = DnsQuestion::read(&plain).unwrap();
    assert_eq!(question.name.without_service(), question.name);
}

#[test]
fn errors_and_questions_give_nothing() {
    let message = answer("a.example.", vec![address("a.example.", 60, v4(1))], Vec::new());
    assert_eq!(pairs(&message).len(), 1);
    let with_flags = |byte: usize, value: u8| {
        let mut message = message.clone();
        message[byte] = value;
        pairs(&message)
    };
    assert_eq!(with_flags(2, 0), [], "a question");
    assert_eq!(with_flags(3, ResponseCode::NXDomain.low()), [], "no such name");
    assert_eq!(with_flags(5, 2), [], "two questions");
}

#[test]
fn a_cut_answer_gives_what_is_left_of_it() {
    let records = (1..=3)
        .map(|last| address("a.example.", 60, v4(last)))
        .collect();
    let message = answer("a.example.", records, Vec::new());
    assert_eq!(given(&message[..message.len() - 1]).len(), 2);
}

#[test]
fn names_have_no_loops_and_a_limit() {
    let at = |bytes: &[u8], place: usize| DnsName::read(bytes, place);
    assert_eq!(at(&[0xc0, 0], 0), None, "a pointer to itself");
    assert_eq!(at(&[1, b'a', 0xc0, 0], 0), None, "a pointer to its own start");
    assert_eq!(at(&[0, 0xc0, 5, 0, 0, 1, b'a', 0], 1), None, "a pointer forward");
    assert_eq!(at(&[0x40, 0], 0), None, "an unknown kind of label");
    let (found, end) = at(&[1, b'B', 0, 1, b'a', 0xc0, 0], 3).unwrap();
    assert_eq!((found.text().as_deref(), end), (Some("a.b"), 7));
    for (last, fits) in [(61, true), (62, false)] {
        let mut long = Vec::new();
        for length in [63_u8, 63, 63, last] {
            long.push(length);
            long.extend(vec![b'a'; length.into()]);
        }
        long.push(0);
        assert_eq!(at(&long, 0).is_some(), fits, "{} bytes", long.len());
    }
}

#[test]
fn follows_so_many_pointers() {
    let steps = |count: usize| {
        let mut bytes = vec![0_u8];
        for step in 0..count {
            let target = if step == 0 { 0 } else { 1 + (step - 1) * 2 };
            bytes
                .extend([0xc0 | u8::try_from(target >> 8).unwrap(), u8::try_from(target).unwrap()]);
        }
        DnsName::read(&bytes, bytes.len() - 2).is_some()
    };
    assert!(steps(64) && !steps(65));
}

#[test]
fn looks_at_so_many_records_and_addresses() {
    let numbered = |at: usize| {
        address("a.example.", 60, IpAddr::from(u128::try_from(at).unwrap().to_be_bytes()))
    };
    let many = (1..=MAX_RECORDS + 9).map(numbered).collect();
    assert_eq!(given_to("a.example.", many).len(), MAX_RECORDS);
    let hints = |from: usize| {
        let hint = (from..from + 600)
            .map(|at| AAAA(Ipv6Addr::from(u128::try_from(at).unwrap())))
            .collect();
        let hints = vec![(SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(hint)))];
        Record::from_rdata(name("a.example."), 60, RData::SVCB(SVCB::new(1, name("."), hints)))
    };
    assert_eq!(given_to("a.example.", vec![hints(1), hints(1_000)]).len(), MAX_GIVEN);
}

/// What hickory's reader makes of a message, by the rules of [`given`].
fn oracle(message: &Message) -> Vec<(IpAddr, u32)> {
    let mut owner = message.queries[0].name().to_lowercase();
    let mut ttl = u32::MAX;
    let is = |record: &Record, owner: &Name| record.name.to_lowercase() == *owner;
    for _ in 0..MAX_CHAIN {
        let next = message
            .answers
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(target) if is(record, &owner) => {
                    Some((target.0.to_lowercase(), record.ttl))
                }
                _ => None,
            });
        let Some((target, holds)) = next else { break };
        (owner, ttl) = (target, ttl.min(holds));
    }
    let mut found: Vec<(IpAddr, u32)> = Vec::new();
    for record in message.answers.iter().filter(|record| is(record, &owner)) {
        let Some(address) = record.data.ip_addr() else { continue };
        let holds = ttl.min(record.ttl);
        match found.iter_mut().find(|(known, _)| *known == address) {
            Some((_, known)) => *known = holds.max(*known),
            None => found.push((address, holds)),
        }
    }
    found
}

fn any_record() -> impl Strategy<Value = Record> {
    let owner = (0_u8..5, any::<bool>()).prop_map(|(at, upper)| {
        let text = format!("n{at}.example.");
        if upper { text.to_ascii_uppercase() } else { text }
    });
    (owner, 0_u32..1_000, 0_u8..8, 0_u8..3).prop_map(|(owner, ttl, at, kind)| match kind {
        0 => address(&owner, ttl, v4(at)),
        1 => address(&owner, ttl, v6(at.into())),
        _ => alias(&owner, ttl, &format!("n{}.example.", at % 5)),
    })
}

proptest! {
    #[test]
    fn agrees_with_hickory_on_what_servers_write(
        records in prop::collection::vec(any_record(), 0..12),
    ) {
        let bytes = answer("n0.example.", records, Vec::new());
        let theirs = Message::from_vec(&bytes).unwrap();
        prop_assert_eq!(pairs(&bytes), oracle(&theirs));
    }

    #[test]
    fn survives_changed_messages_and_agrees_where_hickory_can_read_them(
        records in prop::collection::vec(any_record(), 0..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = answer("n0.example.", records, Vec::new());
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let ours = DnsQuestion::read(&bytes);
        let _survived = given(&bytes);
        if let Ok(theirs) = Message::from_vec(&bytes)
            && theirs.queries.len() == 1
            && let Some((question, _)) = ours
        {
            prop_assert_eq!(question.kind, u16::from(theirs.queries[0].query_type()));
        }
    }

    #[test]
    fn survives_any_bytes(bytes: Vec<u8>, at: usize) {
        let _header = DnsHeader::read(&bytes);
        let _question = DnsQuestion::read(&bytes);
        let _name = DnsName::read(&bytes, at);
        prop_assert!(given(&bytes).len() <= MAX_GIVEN);
    }
}
