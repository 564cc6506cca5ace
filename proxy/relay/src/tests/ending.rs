//! Ends, resets, failures and times pass from one side to the other.

use std::{io, net::SocketAddr, time::Duration};

use outrider_telemetry::{Outcome, Refusal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, assert_reset, rest, unjudged};
use crate::{Delivery, RelaySettings};

#[tokio::test]
async fn a_client_that_ended_still_gets_the_answer() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.client.write_all(b"question").await.unwrap();
    flow.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut flow.server).await.unwrap(), b"question");
    flow.server.write_all(b"answer").await.unwrap();
    flow.server.shutdown().await.unwrap();
    assert_eq!(rest(&mut flow.client).await.unwrap(), b"answer");
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Done), 1);
    rig.assert_sums(1, 14);
}

#[tokio::test]
async fn a_server_that_ended_still_gets_the_rest() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.server.write_all(b"enough").await.unwrap();
    flow.server.shutdown().await.unwrap();
    assert_eq!(rest(&mut flow.client).await.unwrap(), b"enough");
    flow.client.write_all(b"one more thing").await.unwrap();
    flow.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut flow.server).await.unwrap(), b"one more thing");
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Done), 1);
}

#[tokio::test]
async fn a_reset_passes_from_client_to_server() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.ask(b"hello").await;
    flow.client.set_zero_linger().unwrap();
    drop(flow.client);
    assert_reset(&mut flow.server).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::ResetByClient), 1);
    rig.assert_sums(1, 5);
}

#[tokio::test]
async fn a_reset_passes_from_server_to_client() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.answer(b"hello").await;
    flow.server.set_zero_linger().unwrap();
    drop(flow.server);
    assert_reset(&mut flow.client).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::ResetByServer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_found_although_the_server_reads_nothing() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    let block = [0xa5; 64 * 1024];
    // The paused clock moves on only when nothing else does: once every buffer on the way is full.
    let limit = Duration::from_millis(500);
    while let Ok(written) = tokio::time::timeout(limit, flow.client.write(&block)).await {
        written.unwrap();
    }
    flow.client.set_zero_linger().unwrap();
    drop(flow.client);
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::ResetByClient), 1);
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_server_takes_no_more() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    let body = vec![b'x'; 16 * 1024 * 1024];
    let (mut read_half, mut write_half) = flow.client.split();
    let server = async {
        let mut start = [0; 1000];
        flow.server.read_exact(&mut start).await.unwrap();
        flow.server.write_all(b"too large").await.unwrap();
        // Closing with unread bytes resets the connection after the answer.
        drop(flow.server);
    };
    let upload = async { write_half.write_all(&body).await };
    let download = async {
        let mut got = [0; 9];
        read_half.read_exact(&mut got).await.map(|_| got)
    };
    let (uploaded, answer, ()) = tokio::join!(upload, download, server);
    assert!(uploaded.is_err(), "the upload was cut short");
    assert_eq!(&answer.unwrap(), b"too large");
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::ResetByServer), 1);
}

#[tokio::test]
async fn a_refused_dial_resets_the_client_and_is_counted() {
    let rig = Rig::new(unjudged()).await;
    // Bound, so that nobody else gets the port, and not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (mut client, downstream, key) = rig.arrive().await;
    rig.relay(downstream, key, closed.local_addr().unwrap());
    assert_reset(&mut client).await;
    rig.settle().await;
    assert_eq!(rig.refused(Refusal::ConnectionRefused), 1);
    assert_eq!(rig.ended(Outcome::DialFailed), 1);
    assert!(rig.rows().is_empty(), "what was never dialled is no session");
}

/// A listener whose queue is full: who dials it gets no answer.
fn silent() -> io::Result<(Vec<std::net::TcpStream>, socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(0)?;
    let addr = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        queued.push(stream);
    }
    Ok((queued, socket, addr))
}

#[tokio::test]
async fn a_dial_without_an_answer_ends_in_time() {
    let connect_timeout = Duration::from_millis(300);
    let rig =
        Rig::with(unjudged(), RelaySettings { connect_timeout, ..RelaySettings::default() }).await;
    let (_queued, _socket, addr) = silent().unwrap();
    let (mut client, downstream, key) = rig.arrive().await;
    rig.relay(downstream, key, addr);
    assert_reset(&mut client).await;
    rig.settle().await;
    assert_eq!(rig.refused(Refusal::ConnectTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_flow_is_cut_when_the_other_side_stays_silent() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.ask(b"question").await;
    flow.client.shutdown().await.unwrap();
    assert!(rest(&mut flow.server).await.unwrap().is_empty());
    let start = Instant::now();
    assert_reset(&mut flow.client).await;
    assert!(flow.server.write_all(b"too late").await.is_err(), "the server was reset too");
    let waited = start.elapsed().as_secs();
    assert!((80..=110).contains(&waited), "{waited} s");
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::TimedOut), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_flow_lives_unless_a_limit_is_set() {
    let limit = Some(Duration::from_secs(1200));
    for (idle_timeout, outcome) in [(None, None), (limit, Some(Outcome::TimedOut))] {
        let settings = RelaySettings { idle_timeout, ..RelaySettings::default() };
        let rig = Rig::with(unjudged(), settings).await;
        let mut flow = rig.flow().await;
        flow.ask(b"question").await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        match outcome {
            None => flow.answer(b"at last").await,
            Some(outcome) => {
                rig.settle().await;
                assert_eq!(rig.ended(outcome), 1);
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_task_resets_both_sides_and_reports_the_flow_once() {
    let rig = Rig::new(unjudged()).await;
    let (mut client, downstream, key) = rig.arrive().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cut = CancellationToken::new();
    let delivery = Delivery::to(server.local_addr().unwrap());
    let flow = rig.relay.clone().run(downstream, key, delivery);
    rig.tasks.spawn(cut.clone().run_until_cancelled_owned(flow));
    let (mut upstream, _) = server.accept().await.unwrap();
    client.write_all(b"hello").await.unwrap();
    upstream.read_exact(&mut [0; 5]).await.unwrap();
    cut.cancel();
    assert_reset(&mut client).await;
    assert_reset(&mut upstream).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Cut), 1);
    rig.assert_sums(1, 5);
}

#[tokio::test]
async fn a_drain_cuts_what_is_left() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    flow.ask(b"hello").await;
    assert_eq!(rig.relay.cut_all(), 1);
    assert_reset(&mut flow.client).await;
    assert_reset(&mut flow.server).await;
    let mut late = rig.client().await;
    assert_reset(&mut late).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Cut), 2);
}

#[tokio::test]
async fn many_flows_are_each_reported_once() {
    const FLOWS: u32 = 200;
    let rig = Rig::new(unjudged()).await;
    for index in 0..FLOWS {
        let mut flow = rig.flow().await;
        flow.ask(b"ping").await;
        flow.answer(b"pong").await;
        if index % 3 == 0 {
            flow.client.set_zero_linger().unwrap();
        }
    }
    rig.settle().await;
    rig.assert_sums(FLOWS, u64::from(FLOWS) * 8);
}
