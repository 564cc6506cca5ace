//! What the recorded flows say (`corpus/README.md` tells how each was made).

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    Event,
    replay::{Segment, read},
    testing::{all_on, seen, threats},
};

macro_rules! flows {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../corpus/", $name, ".flow")))),*]
    };
}

const FLOWS: [(&str, &str); 19] = flows![
    "dns-dig" "http-chunked" "http-curl" "http2-curl" "http2-nghttp" "mariadb-denied"
    "mariadb-nodb" "mariadb-ok" "postgres-plain" "postgres-tls" "redis-cli" "redis-inline"
    "redis-pipe" "ssh-openssh" "tls-curl" "tls1-openssl" "tls1_1-openssl" "tls1_2-openssl"
    "tls1_3-openssl"
];

/// Every recorded flow.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Vec<Segment>)> {
    FLOWS.into_iter().map(|(name, text)| (name, read(text)))
}

/// Events of one recorded flow.
fn events(name: &str) -> Vec<Event> {
    let (_, flow) = all().find(|(known, _)| *known == name).unwrap();
    let flow: Vec<(Side, &[u8])> = flow.iter().map(|(side, bytes)| (*side, &**bytes)).collect();
    seen(&all_on(), 1, &flow).events
}

/// The application, how many requests, and the rest.
fn summary(name: &str) -> (AppId, usize, Vec<Event>) {
    let mut events = events(name);
    let mut app = None;
    let requests = events
        .iter()
        .filter(|event| **event == Event::Request)
        .count();
    events.retain(|event| match event {
        Event::Application(said) => app.replace(*said).is_some(),
        Event::Request => false,
        _ => true,
    });
    (app.unwrap(), requests, events)
}

fn names(server_name: &str, protocol: &str) -> [Event; 2] {
    [Event::Sni(server_name.into()), Event::Alpn(protocol.into())]
}

#[test]
fn http() {
    let host = |name: &str| Event::Host(name.into());
    let software = Event::ServerSoftware(AppId::NGINX);
    let several = vec![host("web.example"), software.clone(), host("127.0.0.1")];
    assert_eq!(summary("http-curl"), (AppId::HTTP, 7, several));
    let local = vec![host("127.0.0.1"), software.clone()];
    assert_eq!(summary("http-chunked"), (AppId::HTTP, 2, local.clone()));
    assert_eq!(summary("http2-curl"), (AppId::HTTP, 1, vec![host("web.example"), software]));
    assert_eq!(summary("http2-nghttp"), (AppId::HTTP, 2, local));
}

#[test]
fn tls() {
    let modern = names("secure.example", "http/1.1").to_vec();
    for name in ["tls1_2-openssl", "tls1_3-openssl"] {
        assert_eq!(summary(name), (AppId::SSL, 0, modern.clone()), "{name}");
    }
    assert_eq!(summary("tls-curl"), (AppId::SSL, 0, names("web.example", "h2").to_vec()));
    for (name, id) in [("tls1-openssl", ThreatId::TLS_1_0), ("tls1_1-openssl", ThreatId::TLS_1_1)] {
        let (app, _, events) = summary(name);
        assert_eq!((app, &events[..2]), (AppId::SSL, &modern[..]));
        assert_eq!(threats(&events).len(), 1);
        assert_eq!(threats(&events)[0].0, id);
    }
}

#[test]
fn databases() {
    assert_eq!(summary("redis-pipe"), (AppId::REDIS, 9, vec![]), "and the ECHO that ends it");
    assert_eq!(summary("redis-inline"), (AppId::REDIS, 4, vec![]));
    assert_eq!(summary("redis-cli"), (AppId::REDIS, 7, vec![]));
    assert_eq!(summary("postgres-plain"), (AppId::POSTGRESQL, 2, vec![]));
    assert_eq!(summary("postgres-tls"), (AppId::POSTGRESQL, 0, vec![]));
    assert_eq!(summary("mariadb-ok"), (AppId::MYSQL, 3, vec![]));
    for (name, user, code) in [("mariadb-denied", "mallory", 1045), ("mariadb-nodb", "alice", 1044)]
    {
        let (app, requests, events) = summary(name);
        assert_eq!((app, requests), (AppId::MYSQL, 0));
        let message = format!("login of {user:?} refused, error {code}");
        assert_eq!(threats(&events), [(ThreatId::MYSQL_DENIED, Side::Server, &*message)]);
    }
}

#[test]
fn others() {
    assert_eq!(summary("ssh-openssh"), (AppId::SSH, 0, vec![]));
    assert_eq!(summary("dns-dig"), (AppId::DNS, 2, vec![]));
}
