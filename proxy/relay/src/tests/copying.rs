//! Bytes arrive as they were sent.

use std::time::Duration;

use outrider_telemetry::Outcome;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::TcpStream,
};

use super::rig::{Rig, rest, unjudged};
use crate::{pipe, scratch::CHUNK};

/// A repeatable stream of bytes that no recogniser knows, and a source of chunk sizes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).map(|_| self.next().to_le_bytes());
        words.flatten().take(len).collect()
    }
}

const TOTAL: usize = 64 * 1024 * 1024;

async fn send_in_chunks(mut stream: impl tokio::io::AsyncWrite + Unpin, data: &[u8], seed: u64) {
    let mut sizes = Noise(seed);
    let mut left = data;
    while !left.is_empty() {
        let size = 1 + usize::try_from(sizes.next() % 200_000).unwrap();
        let (now, later) = left.split_at(size.min(left.len()));
        stream.write_all(now).await.unwrap();
        left = later;
    }
    stream.shutdown().await.unwrap();
}

async fn exchange(client: TcpStream, server: TcpStream, up: &[u8], down: &[u8]) {
    let (mut from_relay, to_relay) = split(client);
    let (mut at_server, answers) = split(server);
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    let (_, _, up_read, down_read) = tokio::join!(
        send_in_chunks(to_relay, up, 7),
        send_in_chunks(answers, down, 11),
        at_server.read_to_end(&mut got_up),
        from_relay.read_to_end(&mut got_down),
    );
    up_read.unwrap();
    down_read.unwrap();
    assert!(got_up == up, "client to server, {} of {}", got_up.len(), up.len());
    assert!(got_down == down, "server to client, {} of {}", got_down.len(), down.len());
}

#[tokio::test]
async fn is_byte_exact_both_ways_at_once_through_copy_and_splice() {
    let rig = Rig::new(unjudged()).await;
    let flow = rig.flow().await;
    let (up, down) = (Noise(1).bytes(TOTAL), Noise(2).bytes(TOTAL));
    exchange(flow.client, flow.server, &up, &down).await;
    rig.settle().await;
    assert_eq!(rig.ended(Outcome::Done), 1);
    rig.assert_sums(1, 2 * TOTAL as u64);
    assert!(pipe::pooled() > 0, "nobody wanted the bytes, so pipes were used and given back");
}

#[tokio::test]
async fn bodies_of_known_length_are_spliced_and_the_next_message_is_read() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    let body = Noise(3).bytes(1024 * 1024);
    let head =
        format!("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut bytes = 0;
    for _ in 0..3 {
        let request = b"GET /large HTTP/1.1\r\nHost: web\r\n\r\n";
        flow.ask(request).await;
        let answer = [head.as_bytes(), &body].concat();
        let (mut reader, writer) = (Vec::new(), &mut flow.server);
        let mut limited = (&mut flow.client).take(answer.len() as u64);
        let (sent, read) =
            tokio::join!(writer.write_all(&answer), limited.read_to_end(&mut reader));
        sent.unwrap();
        read.unwrap();
        assert!(reader == answer);
        bytes += (request.len() + answer.len()) as u64;
    }
    assert!(pipe::pooled() > 0, "the bodies were spliced");
    drop(flow);
    rig.settle().await;
    let app = outrider_model::AppId::HTTP;
    let requests = rig
        .telemetry
        .metrics()
        .requests(outrider_model::Direction::Inbound, app);
    assert_eq!(requests.get(), 3, "every request was read, though the bodies were not");
    rig.assert_sums(1, bytes);
}

#[tokio::test]
async fn a_small_exchange_after_a_large_one_still_passes_at_once() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    let bulk = Noise(4).bytes(8 * 1024 * 1024);
    let mut got = vec![0; bulk.len()];
    let (sent, read) = tokio::join!(flow.client.write_all(&bulk), flow.server.read_exact(&mut got));
    sent.unwrap();
    read.unwrap();
    assert!(got == bulk);
    for _ in 0..50 {
        flow.ask(b"ping").await;
        flow.answer(b"pong").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_sender_up_and_costs_one_buffer() {
    let rig = Rig::new(unjudged()).await;
    let mut flow = rig.flow().await;
    let block = Noise(5).bytes(CHUNK);
    let mut sent = Vec::new();
    // The paused clock moves on only when nothing else does: once every buffer on the way is full.
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(500), flow.client.write(&block)).await
    {
        sent.extend_from_slice(&block[..result.unwrap()]);
        assert!(sent.len() < TOTAL, "nothing holds the sender up");
    }
    flow.client.shutdown().await.unwrap();
    let got = rest(&mut flow.server).await.unwrap();
    assert!(got == sent, "{} of {} bytes, in order", got.len(), sent.len());
}

#[tokio::test]
async fn a_future_is_small() {
    let rig = Rig::new(unjudged()).await;
    let (_client, downstream, key) = rig.arrive().await;
    let delivery = crate::Delivery::to(rig.server_addr());
    let future = rig.relay.clone().run(downstream, key, delivery);
    let size = std::mem::size_of_val(&future);
    assert!(size <= 1024, "a flow's future is {size} bytes");
}
