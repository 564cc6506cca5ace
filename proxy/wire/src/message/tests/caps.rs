//! Lists of any length, and the caps on one datagram.

use std::{fmt::Debug, net::Ipv4Addr};

use outrider_model::{AppId, IpProto, MacAddr};

use super::with_length;
use crate::{
    AppPort, AppUpdate, Body, Connection, Connections, FqdnFlags, FqdnUpdate, Header, Meter,
    MeterList, Session, SessionList, Text, ThreatLog, WireError,
    limits::{
        MAX_APP_PORTS, MAX_CONNECTIONS, MAX_FQDN_ADDRESSES, MAX_MESSAGE, MAX_METERS, MAX_PACKET,
        MAX_SESSIONS,
    },
};

fn port(number: usize) -> AppPort {
    AppPort {
        port: u16::try_from(number).expect("a port"),
        proto: AppId::HTTP,
        server: AppId::UNKNOWN,
        application: AppId::UNKNOWN,
        ip_proto: IpProto::TCP,
    }
}

/// Encodes every part, checks the sizes, and decodes them again.
fn through_the_wire<B: Body + Debug + PartialEq>(parts: impl Iterator<Item = B>) -> Vec<B> {
    let part = |part: B| {
        let bytes = part.encode().expect("within the cap");
        assert!(bytes.len() <= MAX_MESSAGE);
        let decoded = B::decode_exact(&bytes).expect("what encodes decodes");
        assert_eq!(decoded, part);
        decoded
    };
    parts.map(part).collect()
}

#[test]
fn lists_of_any_length_are_split_and_closed() {
    for count in [0, 1, MAX_SESSIONS, MAX_SESSIONS + 1, 1000] {
        let sessions: Vec<_> = (0..count).map(session).collect();
        let parts = through_the_wire(SessionList::split(&sessions));
        assert_eq!(parts.len(), count.div_ceil(MAX_SESSIONS) + 1);
        let (closing, full) = parts.split_last().expect("at least the closing one");
        assert_eq!(closing, &SessionList { more: false, sessions: Vec::new() });
        assert!(
            full.iter()
                .all(|part| part.more && !part.sessions.is_empty())
        );
        let again: Vec<_> = full.iter().flat_map(|part| part.sessions.clone()).collect();
        assert_eq!(again, sessions);
    }
}

fn session(id: usize) -> Session {
    Session { id: u32::try_from(id).expect("a number"), ..Session::default() }
}

#[test]
fn meters_are_split_and_closed() {
    let meters = vec![Meter::default(); MAX_METERS + 1];
    let parts = through_the_wire(MeterList::split(&meters));
    let lengths: Vec<_> = parts
        .iter()
        .map(|part| (part.more, part.meters.len()))
        .collect();
    assert_eq!(lengths, [(true, MAX_METERS), (true, 1), (false, 0)]);
}

#[test]
fn notifications_are_split_without_a_closing_datagram_and_with_more_zero() {
    let rows = vec![Connection::default(); 2 * MAX_CONNECTIONS + 1];
    let parts = through_the_wire(Connections::split(&rows));
    let lengths: Vec<_> = parts.iter().map(|part| part.rows.len()).collect();
    assert_eq!(lengths, [MAX_CONNECTIONS, MAX_CONNECTIONS, 1]);
    let bytes = parts[0].encode().expect("full");
    assert_eq!(bytes.len(), 8168, "as long as the real data path's longest");
    assert!(!Header::split(&bytes).expect("a header").0.more);

    let ports: Vec<_> = (0..=MAX_APP_PORTS).map(port).collect();
    let parts = through_the_wire(AppUpdate::split(MacAddr::default(), &ports));
    assert_eq!(
        parts
            .iter()
            .map(|part| part.ports.len())
            .collect::<Vec<_>>(),
        [MAX_APP_PORTS, 1]
    );

    let update = FqdnUpdate {
        name: Text::exact("*.example.test").expect("short"),
        flags: FqdnFlags::NONE,
        addresses: vec![Ipv4Addr::LOCALHOST; MAX_FQDN_ADDRESSES + 1],
    };
    let parts = through_the_wire(update.split());
    let lengths: Vec<_> = parts.iter().map(|part| part.addresses.len()).collect();
    assert_eq!(lengths, [MAX_FQDN_ADDRESSES, 1]);
}

fn refuses_to_encode<B: Body>(what: &'static str, cap: usize, body: &B) {
    let count = cap + 1;
    assert_eq!(body.encode(), Err(WireError::TooMany { what, count, cap }));
}

#[test]
fn one_more_than_a_datagram_takes_is_not_encoded() {
    let sessions = vec![Session::default(); MAX_SESSIONS + 1];
    refuses_to_encode("sessions", MAX_SESSIONS, &SessionList { more: true, sessions });
    let meters = vec![Meter::default(); MAX_METERS + 1];
    refuses_to_encode("meters", MAX_METERS, &MeterList { more: true, meters });
    let rows = vec![Connection::default(); MAX_CONNECTIONS + 1];
    refuses_to_encode("connections", MAX_CONNECTIONS, &Connections { rows });
    let ports = (0..=MAX_APP_PORTS).map(port).collect();
    refuses_to_encode("ports", MAX_APP_PORTS, &AppUpdate { mac: MacAddr::default(), ports });
    let addresses = vec![Ipv4Addr::LOCALHOST; MAX_FQDN_ADDRESSES + 1];
    let update = FqdnUpdate { addresses, ..FqdnUpdate::default() };
    refuses_to_encode("addresses", MAX_FQDN_ADDRESSES, &update);
    let log = ThreatLog { packet: vec![0; MAX_PACKET + 1], ..ThreatLog::default() };
    refuses_to_encode("packet bytes", MAX_PACKET, &log);
}

/// Patches the count in a message's bytes to one more than the cap.
fn refuses_to_decode<B: Body + Debug + PartialEq>(
    what: &'static str,
    cap: usize,
    (body, at): (&B, usize),
) {
    let mut bytes = body.encode().expect("small");
    let count = u16::try_from(cap + 1).expect("a count");
    bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    let refused = Err(WireError::TooMany { what, count: cap + 1, cap });
    assert_eq!(B::decode_exact(&with_length(bytes)), refused);
}

#[test]
fn a_count_above_the_cap_is_refused_before_anything_is_read() {
    refuses_to_decode("sessions", MAX_SESSIONS, (&SessionList::default(), 4));
    refuses_to_decode("meters", MAX_METERS, (&MeterList::default(), 4));
    refuses_to_decode("connections", MAX_CONNECTIONS, (&Connections::default(), 4));
    refuses_to_decode("ports", MAX_APP_PORTS, (&AppUpdate::default(), 10));
    refuses_to_decode("addresses", MAX_FQDN_ADDRESSES, (&FqdnUpdate::default(), 260));
    refuses_to_decode("packet bytes", MAX_PACKET, (&ThreatLog::default(), 68));
}

#[test]
fn a_datagram_above_the_cap_is_refused() {
    let long = with_length(vec![7; MAX_MESSAGE + 1]);
    assert_eq!(Connections::decode_exact(&long), Err(WireError::TooLong(MAX_MESSAGE + 1)));
}

#[test]
fn texts_fit_their_fields_or_are_refused() {
    let longest = "x".repeat(255);
    assert_eq!(Text::<256>::exact(&longest).expect("fits").as_str(), longest);
    assert_eq!(Text::<256>::exact(&"x".repeat(256)), Err(WireError::Text));
    assert_eq!(Text::<256>::exact("a\0b"), Err(WireError::Text));
    assert_eq!(Text::<64>::cut(&"x".repeat(100)).as_bytes().len(), 63);
    assert_eq!(Text::<4>::cut("aé€").as_str(), "aé");
    assert_eq!(Text::<4>::cut("a\0b").as_str(), "a");
}

#[test]
fn a_text_without_its_nul_is_refused() {
    let mut bytes = FqdnUpdate::default().encode().expect("small");
    bytes[4..260].fill(b'x');
    assert_eq!(FqdnUpdate::decode_exact(&bytes), Err(WireError::Text));
}
