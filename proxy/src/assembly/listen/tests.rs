use std::io::ErrorKind;

use outrider_capture::CaptureMode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::testing::{assemble, settings};

fn intake() -> (Intake, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (context, relay, _state) = assemble(settings(dir.path(), &[]));
    (Intake::new(context, relay, &[], None), dir)
}

/// A connection as a redirect rule would have brought it.
fn redirected(stream: TcpStream, original: std::net::SocketAddr) -> Accepted {
    let (peer, local) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    let original = outrider_model::OriginalDst::new(original);
    Accepted { stream, peer, local, original, scope: 0, by: Some(CaptureMode::Redirect) }
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn is_reset(mut client: TcpStream) -> bool {
    let mut byte = [0];
    client
        .read(&mut byte)
        .await
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn refused(intake: &Intake, direction: Direction, reason: telemetry::Refusal) -> u64 {
    intake
        .context
        .telemetry
        .metrics()
        .refused(direction, reason)
        .get()
}

#[tokio::test]
async fn a_direct_dial_is_reset_at_once_and_counted() {
    let (intake, _dir) = intake();
    let listener = Listener::bind(0, CaptureMode::Redirect).unwrap();
    let (port, drain) = (listener.port(), CancellationToken::new());
    let accepting = TaskTracker::new();
    accepting.spawn(
        intake
            .clone()
            .accept(listener, Direction::Inbound, drain.clone()),
    );
    for to in ["127.0.0.1", "::1"] {
        let client = TcpStream::connect((to, port)).await.unwrap();
        assert!(is_reset(client).await, "{to}");
    }
    assert_eq!(refused(&intake, Direction::Inbound, telemetry::Refusal::NotRedirected), 2);
    drain.cancel();
    accepting.close();
    accepting.wait().await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_would_loop_is_reset_at_once_and_counted() {
    let (intake, _dir) = intake();
    for (original, direction) in [
        ("10.77.1.5:15106", Direction::Inbound),
        ("127.0.0.1:15101", Direction::Outbound),
        ("[fd77:1::5]:15100", Direction::Outbound),
    ] {
        let (client, accepted) = pair().await;
        intake.take(redirected(accepted, original.parse().unwrap()), direction);
        assert!(is_reset(client).await, "{original}");
    }
    assert_eq!(refused(&intake, Direction::Outbound, telemetry::Refusal::OwnPort), 2);
    assert_eq!(refused(&intake, Direction::Inbound, telemetry::Refusal::OwnPort), 1);
    assert_eq!(intake.flows.len(), 0);
}

/// A server, and a client whose connection is relayed to it.
async fn relayed(intake: &Intake) -> (TcpStream, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = pair().await;
    intake.take(redirected(accepted, server.local_addr().unwrap()), Direction::Outbound);
    (client, server.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_drain_waits_for_flows_that_end_by_themselves() {
    let (intake, _dir) = intake();
    let (mut client, mut server) = relayed(&intake).await;
    let flows = intake.clone();
    let finishing = TaskTracker::new();
    let cut = finishing.spawn(flows.finish(Duration::from_secs(60), std::future::pending()));
    client.write_all(b"still served").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still served");
    drop((client, server));
    assert_eq!(cut.await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_when_hurried_and_says_how_much() {
    let (intake, _dir) = intake();
    let flows = [relayed(&intake).await, relayed(&intake).await];
    let telemetry = intake.context.telemetry.clone();
    assert_eq!(
        intake
            .finish(Duration::from_secs(60), std::future::ready(()))
            .await,
        2
    );
    assert_eq!(telemetry.flows().len(), 0, "each was reported as ended");
    for (client, _server) in flows {
        assert!(is_reset(client).await);
    }
}

#[test]
fn every_refusal_has_its_reason() {
    for (refusal, counted) in [
        (Refusal::Direct, telemetry::Refusal::NotRedirected),
        (Refusal::OwnPort, telemetry::Refusal::OwnPort),
        (Refusal::ToItself, telemetry::Refusal::OwnPort),
        (Refusal::OwnDelivery, telemetry::Refusal::OwnPort),
    ] {
        assert_eq!(telemetry::Refusal::from(refusal), counted, "{refusal:?}");
    }
}
