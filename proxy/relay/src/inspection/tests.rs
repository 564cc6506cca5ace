//! Chunks in, steps out: no sockets.

use arc_swap::ArcSwap;
use outrider_dpi::DpiConfig;
use outrider_model::{Direction, IpProto, PolicyAction, ThreatId};
use outrider_telemetry::{CutReason, MAX_EVIDENCE, Registry, Telemetry};

use super::*;
use crate::{
    PolicyHandle, PolicyView, RelaySettings,
    judge::Law,
    tests::rig::{all, apps, unjudged},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";
const SMUGGLED: &[u8] =
    b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello";

fn shared(view: PolicyView) -> (PolicyHandle, Arc<Shared>) {
    let policy: PolicyHandle = Arc::new(ArcSwap::from_pointee(view));
    let shared = Shared {
        settings: RelaySettings::default(),
        law: Arc::new(Law::new(Arc::clone(&policy))),
        dpi: Arc::new(DpiConfig::default()),
        telemetry: Telemetry::new(&Registry::default()).unwrap(),
        legs: Arc::default(),
        cut: false.into(),
    };
    (policy, Arc::new(shared))
}

fn key() -> FlowKey {
    FlowKey {
        client: "10.0.0.3:4000".parse().unwrap(),
        server: "10.0.0.2:80".parse().unwrap(),
        proto: IpProto::TCP,
        direction: Direction::Inbound,
    }
}

fn open(view: PolicyView) -> Inspection {
    Inspection::open(&shared(view).1, key()).unwrap()
}

fn only(app: AppId) -> PolicyView {
    apps(Mode::Protect, &[(app, PolicyAction::Allow)])
}

#[test]
fn every_cut_of_a_request_holds_until_the_same_verdict() {
    for cut in 1..GET.len() {
        for (app, last) in [(AppId::HTTP, Step::Pass), (AppId::REDIS, Step::Stop(Outcome::Denied))]
        {
            let mut inspection = open(only(app));
            let (head, tail) = GET.split_at(cut);
            let first = inspection.feed(Side::Client, head, &mut Vec::new());
            assert!(first == Step::Hold || first == last, "cut at {cut}: {first:?}");
            let second = inspection.feed(Side::Client, tail, &mut Vec::new());
            assert_eq!(second, last, "cut at {cut}");
        }
    }
}

#[test]
fn the_server_is_never_held() {
    let mut inspection = open(only(AppId::HTTP));
    assert_eq!(inspection.feed(Side::Client, b"GE", &mut Vec::new()), Step::Hold);
    assert_eq!(inspection.feed(Side::Server, b"x", &mut Vec::new()), Step::Pass);
}

#[test]
fn what_the_inspector_leaves_unsaid_is_unidentified_at_the_end() {
    let mut inspection = open(only(AppId::HTTP));
    assert_eq!(inspection.feed(Side::Client, b"GE", &mut Vec::new()), Step::Hold);
    let end = inspection.end(Side::Client, &mut Vec::new());
    assert_eq!(end, Step::Stop(Outcome::Denied));
}

#[test]
fn nothing_is_wanted_of_what_nobody_recognises() {
    let mut inspection = open(unjudged());
    let noise = [0xa5; 8192];
    for side in [Side::Client, Side::Server] {
        assert_eq!(inspection.feed(side, &noise, &mut Vec::new()), Step::Pass);
    }
    assert_eq!(inspection.need(Side::Client), Need::Nothing);
    assert_eq!(inspection.need(Side::Server), Need::Nothing);
    assert!(inspection.inspector.is_none(), "freed");
    assert_eq!(inspection.flow().identification(), Identification::Unidentified);
}

#[test]
fn a_threat_is_stopped_only_where_policy_is_enforced() {
    for (mode, step) in [(Mode::Monitor, Step::Pass), (Mode::Protect, Step::Stop(Outcome::Threat))]
    {
        let (_, shared) = shared(all(mode, PolicyAction::Allow));
        let mut inspection = Inspection::open(&shared, key()).unwrap();
        assert_eq!(inspection.feed(Side::Client, SMUGGLED, &mut Vec::new()), step, "{mode}");
        assert_eq!(inspection.flow().threat().0, ThreatId::SMUGGLING);
        let (threats, _) = shared.telemetry.threats().lock().take(0);
        assert_eq!(
            threats
                .iter()
                .map(|threat| threat.enforced)
                .collect::<Vec<_>>(),
            [mode == Mode::Protect]
        );
    }
}

#[test]
fn evidence_is_bounded() {
    let (_, shared) = shared(unjudged());
    let mut inspection = Inspection::open(&shared, key()).unwrap();
    let long = [SMUGGLED, &[b'x'; 8192]].concat();
    inspection.feed(Side::Client, &long, &mut Vec::new());
    let (threats, _) = shared.telemetry.threats().lock().take(0);
    let threat = threats.first().unwrap();
    assert_eq!((threat.evidence.len(), threat.length), (MAX_EVIDENCE, long.len()));
}

#[test]
fn answers_only_who_can_read_it_and_was_not_answered() {
    let mut inspection = open(unjudged());
    assert_eq!(inspection.answer(Outcome::Denied), None, "nothing is known of it");
    inspection.feed(Side::Client, GET, &mut Vec::new());
    assert!(
        inspection
            .answer(Outcome::Denied)
            .unwrap()
            .starts_with(b"HTTP/1.1 403 ")
    );
    inspection.flow().count(Side::Server, 1);
    assert_eq!(inspection.answer(Outcome::Denied), None, "the server has begun");

    let mut inspection = open(unjudged());
    inspection.feed(Side::Client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &mut Vec::new());
    assert_eq!(inspection.answer(Outcome::Denied), None, "HTTP/2 reads no HTTP/1");
}

#[test]
fn a_swap_is_seen_with_the_next_bytes() {
    let (policy, shared) = shared(all(Mode::Protect, PolicyAction::Allow));
    let mut inspection = Inspection::open(&shared, key()).unwrap();
    assert_eq!(inspection.feed(Side::Client, GET, &mut Vec::new()), Step::Pass);
    policy.store(Arc::new(PolicyView { version: 2, ..only(AppId::REDIS) }));
    let step = inspection.feed(Side::Client, GET, &mut Vec::new());
    assert_eq!(step, Step::Stop(Outcome::Denied));
    assert_eq!(inspection.flow().verdict(), Verdict::Deny);
}

#[test]
fn heeds_a_cut_before_a_nudge() {
    let mut inspection = open(only(AppId::HTTP));
    assert_eq!(inspection.heed(Waker::noop()), None);
    inspection.flow().nudge();
    assert_eq!(inspection.heed(Waker::noop()), None, "undecided is not denied");
    inspection.flow().nudge();
    inspection.flow().cut(CutReason::Clear);
    assert_eq!(inspection.heed(Waker::noop()), Some(Outcome::Cleared));
}

#[test]
fn teaches_the_ports_of_a_served_workload() {
    let (_, shared) = shared(unjudged());
    let mut inspection = Inspection::open(&shared, key()).unwrap();
    inspection.feed(Side::Client, GET, &mut Vec::new());
    let answer = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22\r\nContent-Length: 0\r\n\r\n";
    inspection.feed(Side::Server, answer, &mut Vec::new());
    let apps = shared.telemetry.apps().lock();
    let ports: Vec<_> = apps.iter().collect();
    let [((proto, port), app)] = ports.as_slice() else { panic!("one port, not {ports:?}") };
    assert_eq!((*proto, *port), (IpProto::TCP, 80));
    assert_eq!((app.proto, app.server), (AppId::HTTP, AppId::NGINX));
}
