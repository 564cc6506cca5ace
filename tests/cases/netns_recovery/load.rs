//! Clients that note what they did: kept connections, new ones, datagrams.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Namespace, Pod};

/// Whatever is not refused or reset is answered within this time, on a machine as busy as may be.
const ANSWER: Duration = Duration::from_secs(20);
/// Time between two exchanges of one client.
const PACE: Duration = Duration::from_millis(8);
/// Exchanges on one kept connection.
const KEPT: u32 = 40;
/// Where the clock answers.
pub(crate) const NTP: u16 = 123;

/// How one client goes about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// HTTP requests on a connection that is kept.
    Kept,
    /// An HTTP request on a connection of its own.
    New,
    /// A question for the time from a port of its own.
    Clock,
}

/// What clients did.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: AtomicU64,
    bytes: AtomicU64,
    broken: AtomicU64,
}

impl Ledger {
    /// Connections and datagram flows with at least one answer.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(SeqCst)
    }

    /// What they sent and received.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    /// Attempts without any answer, and connections that ended in mid-request.
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(SeqCst)
    }
}

/// Clients at work, until they are stopped.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Has one client of each kind call a server from a pod. If `may_break` is false, any failure is one of
    /// [`Self::stop`].
    pub(crate) fn start(from: &Pod, server: &Pod, kinds: &[Kind], may_break: bool) -> Self {
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let clients = kinds.iter().map(|kind| {
            let client = Client {
                kind: *kind,
                netns: from.netns.clone(),
                to: server.at(false, if *kind == Kind::Clock { NTP } else { 80 }),
                ledger: Arc::clone(&ledger),
                stop: Arc::clone(&stop),
                may_break,
            };
            thread::spawn(move || client.netns.enter(|| client.work()))
        });
        let clients = clients.collect();
        Self { ledger, stop, clients }
    }

    /// Whether every client is still at work.
    pub(crate) fn goes_on(&self) -> Result<()> {
        ensure!(self.clients.iter().all(|client| !client.is_finished()), "a client gave up");
        Ok(())
    }

    /// Ends the work; fails if anything failed that must not.
    pub(crate) fn stop(mut self) -> Result<Arc<Ledger>> {
        self.stop.store(true, Relaxed);
        for client in self.clients.drain(..) {
            client.join().ok().context("a client panicked")??;
        }
        Ok(Arc::clone(&self.ledger))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for client in self.clients.drain(..) {
            let _failed_or_not = client.join();
        }
    }
}

struct Client {
    kind: Kind,
    netns: Namespace,
    to: SocketAddr,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    may_break: bool,
}

impl Client {
    fn work(&self) -> Result<()> {
        while !self.stop.load(Relaxed) {
            let worked = match self.kind {
                Kind::Kept => self.converse(KEPT),
                Kind::New => self.converse(1),
                Kind::Clock => self.ask(),
            };
            match worked {
                Ok(()) => {}
                Err(_why) if self.may_break => {
                    self.ledger.broken.fetch_add(1, SeqCst);
                }
                Err(error) => {
                    let sessions = self.ledger.sessions();
                    return Err(
                        error.context(format!("{:?} to {} after {sessions}", self.kind, self.to))
                    );
                }
            }
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// One connection of at most so many requests.
    fn converse(&self, requests: u32) -> Result<()> {
        let stream = TcpStream::connect_timeout(&self.to, ANSWER).context("connecting")?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        for number in 1..=requests {
            let is_last = number == requests || self.stop.load(Relaxed);
            let header = if is_last { "Connection: close\r\n" } else { "" };
            let request = format!("GET / HTTP/1.1\r\nHost: web\r\n{header}\r\n");
            stream.get_mut().write_all(request.as_bytes())?;
            let answer = response(&mut stream).with_context(|| format!("answer {number}"))?;
            if number == 1 {
                self.ledger.sessions.fetch_add(1, SeqCst);
            }
            self.ledger
                .bytes
                .fetch_add(request.len() as u64 + answer, SeqCst);
            if is_last {
                let behind = stream.read(&mut [0; 1]).context("end")?;
                ensure!(behind == 0, "more than was asked for");
                return Ok(());
            }
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// One question and its answer, from a port that was not used in the last minute: the same would be the same flow.
    fn ask(&self) -> Result<()> {
        let next = 20_000 + self.ledger.sessions() % 40_000;
        let socket = UdpSocket::bind(("0.0.0.0", u16::try_from(next)?))?;
        socket.connect(self.to)?;
        socket.set_read_timeout(Some(ANSWER))?;
        let question = question();
        socket.send(&question)?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).context("the time")?;
        self.ledger.sessions.fetch_add(1, SeqCst);
        self.ledger
            .bytes
            .fetch_add((question.len() + length) as u64, SeqCst);
        Ok(())
    }
}

/// Reads one HTTP response; how long it was.
fn response(stream: &mut BufReader<TcpStream>) -> Result<u64> {
    let (mut length, mut body, mut line) = (0, 0, String::new());
    while line != "\r\n" {
        line.clear();
        let read = stream.read_line(&mut line)?;
        ensure!(read > 0, "the connection ended");
        ensure!(length > 0 || line.starts_with("HTTP/1.1 200 "), "{line}");
        length += read;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body = value.trim().parse()?;
        }
    }
    let mut text = vec![0; body];
    stream.read_exact(&mut text)?;
    ensure!(text.starts_with(b"hello from "), "{:?}", String::from_utf8_lossy(&text));
    Ok((length + body) as u64)
}

/// A client's packet of NTP.
fn question() -> Vec<u8> {
    let mut question = vec![0x23, 0, 6, 0xec];
    question.resize(40, 0);
    question.extend([0xe8, 1, 2, 3, 4, 5, 6, 7]);
    question
}

/// Answers questions for the time in a pod, until it is dropped.
pub(crate) struct Clock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(crate) fn start(pod: &Pod) -> Result<Self> {
        let at = pod.at(false, NTP);
        let socket = pod.netns.enter(|| Ok(UdpSocket::bind(at)?))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                buffer[0] = 0x24;
                let _unreachable = socket.send_to(&buffer[..length], from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
