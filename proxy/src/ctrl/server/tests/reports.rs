//! Notifications: nothing is lost, nothing waits, nothing comes twice.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use outrider_model::{Direction, IpProto, Side, ThreatId};
use outrider_telemetry::ThreatReport;
use outrider_wire::Connection;

use super::*;
use crate::testing::{POD_MAC, flow, inbound};

/// Flows of so many clients, opened, filled with `bytes` each, and ended.
pub(super) fn traffic(rig: &Rig, flows: u16, bytes: u64) {
    for n in 0..flows {
        let client = format!("10.1.{}.{}:4000", n / 250, n % 250 + 1);
        drop(flow(rig.telemetry(), inbound(&client, 6379), AppId::REDIS, bytes));
    }
}

pub(super) fn sums(rows: &[Connection]) -> (u32, u64) {
    let sessions = rows.iter().map(|row| row.sessions).sum();
    (sessions, rows.iter().map(|row| u64::from(row.bytes)).sum())
}

/// Rows from the socket until so many sessions are in them.
async fn rows(socket: &UnixDatagram, sessions: u32) -> Vec<Connection> {
    let mut rows = Vec::new();
    while sums(&rows).0 < sessions {
        if let Notification::Connections(more) = notification(socket).await {
            rows.extend(more.rows);
        }
    }
    rows
}

#[tokio::test(start_paused = true)]
async fn reports_nothing_before_somebody_manages_the_workload_and_everything_then() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    traffic(&rig, 3, 10);
    let mut byte = [0];
    let silence = timeout(Duration::from_secs(20), socket.recv(&mut byte)).await;
    assert!(silence.is_err());
    let client = rig.client("client");
    client.add_mac().await;
    let rows = rows(&socket, 3).await;
    assert_eq!(sums(&rows), (3, 30));
    assert!(rows.iter().all(|row| row.epmac == POD_MAC));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_socket_blocks_nothing_and_loses_nothing() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.add_mac().await;
    let mut expected = (0, 0);
    for round in 0..20 {
        traffic(&rig, 900, 7);
        expected = (expected.0 + 900, expected.1 + 6300);
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.is_alive(round).await;
    }
    let rows = rows(&socket, expected.0).await;
    assert_eq!(sums(&rows), expected);
    let totals = rig.telemetry().totals();
    assert_eq!((totals.rows_dropped, totals.sessions_dropped), (0, 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_rows_than_a_wave_takes_go_with_the_next() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let flows = u16::try_from(crate::ctrl::notify::MAX_WAVE_ROWS + 100).unwrap();
    traffic(&rig, flows, 3);
    rig.client("client").add_mac().await;
    assert_eq!(sums(&rows(&socket, flows.into()).await), (flows.into(), 3 * u64::from(flows)));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_a_receiver_that_is_not_there_yet() {
    let rig = Rig::start(&[]).await;
    rig.client("client").add_mac().await;
    traffic(&rig, 5, 10);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let socket = rig.listen();
    assert_eq!(sums(&rows(&socket, 5).await), (5, 50));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_receiver_gets_what_comes_next() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    rig.client("client").add_mac().await;
    traffic(&rig, 1, 10);
    rows(&socket, 1).await;
    drop(socket);
    let socket = rig.listen();
    traffic(&rig, 2, 10);
    assert_eq!(sums(&rows(&socket, 2).await), (2, 20));
    rig.stop().await;
}

/// A batch as the bridge reads it: number, rows, and the datagrams themselves.
pub(super) async fn batch(socket: &UnixDatagram) -> (u64, Vec<Vec<u8>>) {
    loop {
        if let Notification::Batch(batch) = notification(socket).await {
            assert_eq!(batch.instance, Instance(0x1234));
            let mut datagrams = Vec::new();
            for _ in 0..batch.datagrams {
                datagrams.push(receive(socket).await);
            }
            return (batch.seq, datagrams);
        }
    }
}

pub(super) fn batch_rows(datagrams: &[Vec<u8>]) -> Vec<Connection> {
    let rows = datagrams.iter().filter_map(|datagram| {
        match Notification::decode_exact(datagram).unwrap() {
            Notification::Connections(rows) => Some(rows.rows),
            _ => None,
        }
    });
    rows.flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn our_bridge_gets_batches_again_until_it_has_stored_them() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.hello().await;
    client.add_mac().await;
    traffic(&rig, 200, 10);
    let (seq, first) = batch(&socket).await;
    assert_eq!(sums(&batch_rows(&first)), (200, 2000));
    traffic(&rig, 7, 10);
    let (again, second) = batch(&socket).await;
    assert_eq!((again, &second), (seq, &first), "same number, same content, after ten seconds");
    client.ack(Instance(0x1234), seq).await;
    let (next, third) = batch(&socket).await;
    assert_eq!((next, sums(&batch_rows(&third))), (seq + 1, (7, 70)));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_bridge_gets_the_batch_it_did_not_acknowledge() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("bridge-1");
    client.hello().await;
    client.add_mac().await;
    traffic(&rig, 4, 10);
    let (seq, first) = batch(&socket).await;
    drop((socket, client));
    let socket = rig.listen();
    let client = rig.client("bridge-2");
    client.hello().await;
    client.add_mac().await;
    assert_eq!(batch(&socket).await, (seq, first));
    client.ack(Instance(0x1234), seq).await;
    client.is_alive(1).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_says_hello_last_gets_nothing_plainly_before() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("bridge-1");
    client.add_mac().await;
    client.hello().await;
    traffic(&rig, 4, 10);
    let (seq, first) = batch(&socket).await;
    drop((socket, client));
    let socket = rig.listen();
    let client = rig.client("bridge-2");
    client.add_mac().await;
    let mut byte = [0];
    let silence = timeout(Duration::from_secs(5), socket.recv(&mut byte)).await;
    assert!(silence.is_err(), "it may have stored the batch and not have said so");
    client.hello().await;
    assert_eq!(batch(&socket).await, (seq, first));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_kept_its_policy_waits_for_the_hello_of_who_gave_it() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("bridge");
    client.add_mac().await;
    client.is_alive(1).await;
    let kept = rig.path("policy.json");
    while !kept.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rig = Rig::start_in(rig.stop().await, &[]).await;
    let socket = rig.listen();
    traffic(&rig, 4, 10);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let client = rig.client("bridge-2");
    client.add_mac().await;
    client.hello().await;
    let (_, datagrams) = batch(&socket).await;
    assert_eq!(sums(&batch_rows(&datagrams)), (4, 40));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bug_on_the_ctrl_thread_costs_no_report_and_no_policy() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_reading(dir, &[], || {
        assert!(!BROKEN.swap(false, Relaxed), "a bug");
        Ok(pod())
    });
    let rig = rig.await;
    let socket = rig.listen();
    let client = rig.client("bridge");
    client.add_mac().await;
    client.hello().await;
    traffic(&rig, 4, 10);
    let (seq, first) = batch(&socket).await;
    let version = rig.context.policy.load().version;
    BROKEN.store(true, Relaxed);
    // The next look at the interfaces breaks the thread; it comes again, at another socket.
    let restarted = || rig.context.restarts.with(&["ctrl"]).get();
    while restarted() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.context.policy.load().version, version, "the policy in force stays");
    let client = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let socket = UnixDatagram::bind(rig.path("bridge-2")).unwrap();
        if socket.connect(rig.path(names::DP_LISTEN)).is_ok() {
            break Client(socket);
        }
        std::fs::remove_file(rig.path("bridge-2")).unwrap();
    };
    client.add_mac().await;
    client.hello().await;
    let again = loop {
        let (again, datagrams) = batch(&socket).await;
        assert_eq!(datagrams, first);
        if restarted() == 1 {
            break again;
        }
    };
    assert_eq!(again, seq);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_takes_over_gets_plain_reports() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let bridge = rig.client("bridge");
    bridge.hello().await;
    bridge.add_mac().await;
    traffic(&rig, 2, 10);
    batch(&socket).await;
    rig.client("agent").add_mac().await;
    assert_eq!(sums(&rows(&socket, 2).await), (2, 20), "what was not safe is sent plainly");
    traffic(&rig, 1, 10);
    match notification(&socket).await {
        Notification::Connections(rows) => assert_eq!(sums(&rows.rows), (1, 10)),
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn evidence_goes_with_the_rows_of_a_batch() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.hello().await;
    client.add_mac().await;
    let live = flow(rig.telemetry(), inbound("10.0.0.9:4321", 80), AppId::HTTP, 5);
    live.set_host("shop.test".into());
    let (_, datagrams) = batch(&socket).await;
    let flows =
        datagrams
            .iter()
            .find_map(|datagram| match Notification::decode_exact(datagram).unwrap() {
                Notification::Evidence(evidence) => Some(evidence.flows),
                _ => None,
            });
    let flows = flows.unwrap();
    assert_eq!((flows[0].client, flows[0].host.as_str()), (live.key().client, "shop.test"));
    assert_eq!((flows[0].app, flows[0].inbound, flows[0].bytes_client), (AppId::HTTP, true, 5));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn threats_and_applications_are_told_on_the_tick() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    rig.client("client").add_mac().await;
    rig.telemetry()
        .apps()
        .lock()
        .learn(IpProto::TCP, 6379, AppId::REDIS);
    rig.telemetry().threat(ThreatReport {
        id: ThreatId::SMUGGLING,
        direction: Direction::Inbound,
        side: Side::Client,
        client: "10.0.0.9:4000".parse().unwrap(),
        server: "10.77.1.5:80".parse().unwrap(),
        proto: IpProto::TCP,
        app: AppId::HTTP,
        enforced: true,
        stopped: true,
        message: "two lengths".to_owned(),
        evidence: b"POST".to_vec(),
        is_packet: false,
        length: 4,
        count: 1,
        reported_at: 0,
    });
    let (mut apps, mut threats) = (None, None);
    while apps.is_none() || threats.is_none() {
        match notification(&socket).await {
            Notification::AppUpdate(update) => apps = Some(update),
            Notification::ThreatLog(log) => threats = Some(log),
            other => panic!("{other:?}"),
        }
    }
    let ports = apps.unwrap().ports;
    assert_eq!((ports[0].port, ports[0].application), (6379, AppId::REDIS));
    assert_eq!(threats.unwrap().flags.0, 3, "to a workload that serves and enforces");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_table_of_applications_comes_at_once_when_asked_for() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.add_mac().await;
    client
        .send(r#"{"ctrl_cfg_mac":{"macs":["0a:58:0a:4d:01:05"],"tap":true,"apps":[{"ip_proto":6,"port":8080,"app":1001,"server":2022}]}}"#)
        .await;
    client.send(r#"{"ctrl_refresh_app":{}}"#).await;
    match notification(&socket).await {
        Notification::AppUpdate(update) => {
            let port = update.ports[0];
            assert_eq!((port.port, port.proto, port.server), (8080, AppId::HTTP, AppId::NGINX));
        }
        other => panic!("{other:?}"),
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_reports_go_out_before_the_end() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.add_mac().await;
    client.is_alive(1).await;
    traffic(&rig, 3, 10);
    rig.stop().await;
    assert_eq!(sums(&rows(&socket, 3).await), (3, 30));
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_is_no_longer_managed_leaves_its_last_report() {
    let rig = Rig::start(&[]).await;
    let socket = rig.listen();
    let client = rig.client("client");
    client.add_mac().await;
    client.is_alive(1).await;
    traffic(&rig, 3, 10);
    client
        .send(r#"{"ctrl_del_mac":{"iface":"eth0","mac":"0a:58:0a:4d:01:05"}}"#)
        .await;
    assert_eq!(sums(&rows(&socket, 3).await), (3, 30));
    rig.stop().await;
}
