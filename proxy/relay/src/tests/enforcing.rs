//! What Protect stops, what it holds, and what it leaves alone.

use std::time::Duration;

use outrider_model::{AppId, Mode, PolicyAction, ThreatId};
use outrider_telemetry::{Outcome, Refusal};
use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::rig::{RULE, Rig, all, apps, assert_reset, rest, take, unjudged};
use crate::{PolicyView, RelaySettings};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const SMUGGLED: &[u8] =
    b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello";

fn only(app: AppId) -> PolicyView {
    apps(Mode::Protect, &[(app, PolicyAction::Allow)])
}

#[tokio::test]
async fn a_flow_denied_by_address_is_reset_and_nobody_is_dialled() {
    let rig = Rig::new(all(Mode::Protect, PolicyAction::Deny)).await;
    let mut client = rig.client().await;
    assert_reset(&mut client).await;
    rig.settle().await;
    assert!(!rig.was_dialled().await);
    assert_eq!(rig.refused(Refusal::Policy), 1);
    let rows = rig.rows();
    let [(key, row)] = rows.as_slice() else { panic!("one row, not {rows:?}") };
    assert_eq!((key.rule, key.app, row.violations), (RULE, AppId::NOT_CHECKED, 1));
}

#[tokio::test]
async fn a_quarantined_workload_is_cut_off_in_any_mode() {
    let rig = Rig::new(PolicyView { quarantined: true, ..unjudged() }).await;
    let mut client = rig.client().await;
    assert_reset(&mut client).await;
    rig.settle().await;
    assert!(!rig.was_dialled().await);
    assert_eq!(rig.refused(Refusal::Quarantine), 1);
}

#[tokio::test]
async fn watching_modes_block_nothing_and_report_it() {
    for mode in [Mode::Discover, Mode::Monitor] {
        let rig = Rig::new(all(mode, PolicyAction::Deny)).await;
        let mut flow = rig.flow().await;
        flow.ask(SMUGGLED).await;
        flow.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
        drop(flow);
        rig.settle().await;
        let (threats, _) = rig.telemetry.threats().lock().take(0);
        let [threat] = threats.as_slice() else { panic!("one threat, not {threats:?}") };
        assert_eq!((threat.id, threat.stopped), (ThreatId::SMUGGLING, false));
        assert_eq!(threat.evidence, SMUGGLED);
        assert_eq!(
            rig.rows()
                .iter()
                .map(|(_, row)| row.violations)
                .sum::<u32>(),
            1,
            "{mode}"
        );
    }
}

#[tokio::test]
async fn a_denied_request_gets_a_403_with_its_record_and_the_server_sees_nothing() {
    let rig = Rig::new(only(AppId::REDIS)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(GET).await.unwrap();
    let answer = String::from_utf8(rest(&mut flow.client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(answer.ends_with("Denied by policy: flow 1, rule 0.\n"), "{answer}");
    assert_reset(&mut flow.server).await;
    drop(flow);
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Denied), 1);
    let rows = rig.rows();
    let [(key, row)] = rows.as_slice() else { panic!("one row, not {rows:?}") };
    assert_eq!((key.app, row.violations, row.bytes()), (AppId::HTTP, 1, 0));
}

#[tokio::test]
async fn a_denied_command_is_reset_and_the_server_sees_nothing() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(PING).await.unwrap();
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Denied), 1);
}

#[tokio::test]
async fn an_allowed_application_passes() {
    let rig = Rig::new(only(AppId::REDIS)).await;
    let mut flow = rig.flow().await;
    flow.ask(PING).await;
    flow.answer(b"+PONG\r\n").await;
    drop(flow);
    rig.settle().await;
    let rows = rig.rows();
    let [(key, row)] = rows.as_slice() else { panic!("one row, not {rows:?}") };
    assert_eq!((key.rule, key.app), (RULE, AppId::REDIS));
    assert_eq!((row.sessions, row.violations), (1, 0));
}

#[tokio::test]
async fn held_bytes_are_released_in_order() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    let request = b"POST /form HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\n0123456789";
    for byte in request.chunks(1) {
        flow.client.write_all(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&mut flow.server, request.len()).await, request);
    flow.answer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
}

#[tokio::test]
async fn nothing_of_a_held_start_reaches_the_server_before_the_decision() {
    let rig = Rig::new(only(AppId::REDIS)).await;
    let mut flow = rig.flow().await;
    for byte in GET.chunks(1) {
        flow.client.write_all(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_reset(&mut flow.server).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_not_waited_for() {
    let rig = Rig::new(only(AppId::SSH)).await;
    let mut flow = rig.flow().await;
    flow.answer(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    flow.ask(b"SSH-2.0-client\r\n").await;
}

#[tokio::test]
async fn a_denied_server_is_cut_as_soon_as_its_banner_tells() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.server
        .write_all(b"SSH-2.0-OpenSSH_9.2\r\n")
        .await
        .unwrap();
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_in_time_counts_as_unidentified() {
    let unidentified =
        [(AppId::HTTP, PolicyAction::Deny), (AppId::UNIDENTIFIED, PolicyAction::Allow)];
    let rig = Rig::new(apps(Mode::Protect, &unidentified)).await;
    let mut flow = rig.flow().await;
    let start = Instant::now();
    flow.client.write_all(b"GE").await.unwrap();
    assert_eq!(take(&mut flow.server, 2).await, b"GE");
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_in_time_is_denied_where_the_default_denies() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(b"GE").await.unwrap();
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
}

#[tokio::test]
async fn no_more_is_held_than_may_be() {
    let unidentified =
        [(AppId::HTTP, PolicyAction::Deny), (AppId::UNIDENTIFIED, PolicyAction::Allow)];
    let hold_bytes = 100;
    let settings = RelaySettings { hold_bytes, ..RelaySettings::default() };
    let rig = Rig::with(apps(Mode::Protect, &unidentified), settings).await;
    let mut flow = rig.flow().await;
    let head = [b"GET / HTTP/1.1\r\nX-Long: ".as_slice(), &[b'a'; 2000]].concat();
    // The head is not complete, so only the want of room decides; and what was held comes first.
    flow.ask(&head).await;
    // What it is shows later.
    flow.client.write_all(b"\r\n\r\n").await.unwrap();
    assert_reset(&mut flow.server).await;
}

#[tokio::test]
async fn a_client_that_ends_while_it_is_held_is_decided() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(b"GE").await.unwrap();
    flow.client.shutdown().await.unwrap();
    assert_reset(&mut flow.server).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Denied), 1);
}

#[tokio::test]
async fn a_threat_ends_the_flow_before_its_bytes_pass() {
    let rig = Rig::new(all(Mode::Protect, PolicyAction::Allow)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(SMUGGLED).await.unwrap();
    let answer = rest(&mut flow.client).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403 "));
    assert_reset(&mut flow.server).await;
    drop(flow);
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Threat), 1);
    let (threats, _) = rig.telemetry.threats().lock().take(0);
    assert!(
        threats
            .iter()
            .all(|threat| threat.stopped && threat.app == AppId::HTTP)
    );
    assert_eq!(threats.len(), 1);
}

#[tokio::test]
async fn a_denied_handshake_gets_an_alert() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(&client_hello()).await.unwrap();
    assert_eq!(rest(&mut flow.client).await.unwrap(), [21, 3, 3, 0, 2, 2, 49]);
    assert_reset(&mut flow.server).await;
}

/// A minimal TLS 1.2 ClientHello without extensions.
fn client_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &[0, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[tokio::test]
async fn a_new_policy_cuts_a_live_flow_within_a_second() {
    let rig = Rig::new(all(Mode::Protect, PolicyAction::Allow)).await;
    let mut flow = rig.flow().await;
    flow.ask(PING).await;
    flow.answer(b"+PONG\r\n").await;
    let start = Instant::now();
    assert_eq!(rig.swap(only(AppId::HTTP)), (1, 1));
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Denied), 1);
    assert_eq!(
        rig.rows()
            .iter()
            .map(|(_, row)| row.violations)
            .sum::<u32>(),
        1
    );
}

#[tokio::test]
async fn a_new_policy_leaves_the_others_alone() {
    let rig = Rig::new(all(Mode::Protect, PolicyAction::Allow)).await;
    let mut redis = rig.flow().await;
    redis.ask(PING).await;
    let mut web = rig.flow().await;
    web.ask(GET).await;
    let mut silent = rig.flow().await;
    assert_eq!(rig.swap(only(AppId::REDIS)), (3, 1));
    // The server has not answered yet, so the client can be told.
    assert!(
        rest(&mut web.client)
            .await
            .unwrap()
            .starts_with(b"HTTP/1.1 403 ")
    );
    assert_reset(&mut web.server).await;
    redis.answer(b"+PONG\r\n").await;
    // Nothing was known of the silent flow when the policy came: it is judged by its first bytes.
    silent.client.write_all(GET).await.unwrap();
    assert!(
        rest(&mut silent.client)
            .await
            .unwrap()
            .starts_with(b"HTTP/1.1 403 ")
    );
}

#[tokio::test]
async fn a_new_policy_releases_what_was_held() {
    let rig = Rig::new(only(AppId::HTTP)).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(b"GE").await.unwrap();
    flow.server.write_all(b"hello").await.unwrap();
    take(&mut flow.client, 5).await;
    assert_eq!(rig.swap(all(Mode::Protect, PolicyAction::Allow)), (1, 0));
    assert_eq!(take(&mut flow.server, 2).await, b"GE");
}

#[tokio::test]
async fn protect_stops_threats_of_flows_that_began_before_it() {
    let rig = Rig::new(all(Mode::Monitor, PolicyAction::Allow)).await;
    let mut flow = rig.flow().await;
    flow.ask(GET).await;
    flow.answer(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(rig.swap(all(Mode::Protect, PolicyAction::Allow)), (1, 0));
    flow.client.write_all(SMUGGLED).await.unwrap();
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
}
