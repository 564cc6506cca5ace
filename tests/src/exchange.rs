//! A raw TCP client inside a namespace: what to send is given, how it ended is told.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::netns::Namespace;

/// How long an HTTP request of [`get`] may take.
const HTTP: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It was never made.
    Refused,
    /// The other side sent its last byte.
    Closed,
    /// The other side reset it.
    Reset,
    /// The limit came first.
    TimedOut,
}

/// What came of an exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Everything that was received.
    pub received: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
}

/// Connects, sends, and reads until the connection ends or `limit` has passed.
pub fn exchange(
    netns: &Namespace,
    address: SocketAddr,
    send: &[u8],
    limit: Duration,
) -> Result<Exchange> {
    netns.enter(|| {
        let start = Instant::now();
        let mut received = Vec::new();
        let end = converse(address, send, start + limit, &mut received)?;
        Ok(Exchange { received, end, took: start.elapsed() })
    })
}

fn converse(
    address: SocketAddr,
    send: &[u8],
    deadline: Instant,
    received: &mut Vec<u8>,
) -> Result<End> {
    let left = || {
        deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    };
    let mut stream = match TcpStream::connect_timeout(&address, left()) {
        Ok(stream) => stream,
        Err(error) => {
            return end_of(&error).with_context(|| format!("connecting {address}: {error}"));
        }
    };
    if let Err(error) = stream.write_all(send) {
        return end_of(&error).with_context(|| format!("sending to {address}: {error}"));
    }
    let mut buffer = [0; 16384];
    loop {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(End::Closed),
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return end_of(&error).with_context(|| format!("reading: {error}")),
        }
    }
}

fn end_of(error: &std::io::Error) -> Option<End> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(End::Refused),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(End::Reset),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Some(End::TimedOut),
        _ => None,
    }
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: String,
}

/// One HTTP/1.0 request inside a namespace.
pub fn get(netns: &Namespace, address: SocketAddr, path: &str) -> Result<Response> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let answer = exchange(netns, address, request.as_bytes(), HTTP)?;
    let text = String::from_utf8_lossy(&answer.received);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("no HTTP: {:?} {text}", answer.end))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response { status: status.with_context(|| head.to_owned())?, body: body.to_owned() })
}
