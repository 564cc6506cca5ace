//! One honest proxy: answers requests, reports, waits for acknowledgements.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use outrider_model::names;
use outrider_wire::{
    Body as _, Connections, KeepAlive, Reply,
    ext::{Batch, Instance, Status},
    request::Request,
};
use parking_lot::Mutex;
use tokio::{
    net::UnixDatagram,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Phase, everything,
    traffic::{Key, Shape, Traffic},
};

/// Longest datagram of the protocol.
const MAX_DATAGRAM: usize = 8192;
/// How long a batch may stay unacknowledged before it goes out again, as the real proxy has it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two tries to reach the bridge.
const AGAIN: Duration = Duration::from_millis(50);

/// Whose protocol it speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manner {
    /// Ours: hello, batches, acknowledgements.
    Ours,
    /// NeuVector's data path: what is sent is sent.
    Foreign,
}

/// What one proxy did.
#[derive(Debug, Default)]
pub struct Tally {
    waves: AtomicU64,
    rows: AtomicU64,
    repeated: AtomicU64,
    keep_alives: AtomicU64,
    unreadable: AtomicU64,
    slowest: AtomicU64,
    pub(super) sums: Mutex<BTreeMap<Key, (u64, u64)>>,
    busy: AtomicBool,
}

impl Tally {
    /// Reports that are done with: acknowledged or, without acknowledgements, sent.
    #[must_use]
    pub fn waves(&self) -> u64 {
        self.waves.load(Ordering::Relaxed)
    }

    /// Rows in those.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Batches that had to go out again.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// Keep-alives answered.
    #[must_use]
    pub fn keep_alives(&self) -> u64 {
        self.keep_alives.load(Ordering::Relaxed)
    }

    /// Requests that could not be read.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Longest time from the begin of a report to its acknowledgement, in milliseconds.
    #[must_use]
    pub fn slowest(&self) -> u64 {
        self.slowest.load(Ordering::Relaxed)
    }

    /// Whether a report is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }
}

/// One simulated proxy.
#[derive(Debug)]
pub struct Member {
    /// Which one.
    pub number: u32,
    /// Whose protocol it speaks.
    pub manner: Manner,
    /// Its mailbox.
    pub mailbox: PathBuf,
    /// What it did.
    pub tally: Arc<Tally>,
    /// What it is to do.
    pub phase: watch::Receiver<Phase>,
}

impl Member {
    /// Starts its tasks.
    pub fn join(self, all: &mut JoinSet<()>, traffic: Traffic, pace: Duration) -> Result<()> {
        let socket = UnixDatagram::bind(self.mailbox.join(names::DP_LISTEN))?;
        let (acked, ack) = watch::channel(0);
        let answering =
            Answering { socket, manner: self.manner, tally: Arc::clone(&self.tally), acked };
        all.spawn(answering.run());
        all.spawn(self.report(traffic, pace, ack));
        Ok(())
    }

    async fn report(mut self, traffic: Traffic, pace: Duration, mut ack: watch::Receiver<u64>) {
        let Ok(socket) = connect(&self.mailbox).await else { return };
        let mut wave = 0;
        loop {
            if self
                .phase
                .wait_for(|phase| *phase == Phase::Report)
                .await
                .is_err()
            {
                return;
            }
            if wave == 0 {
                // Real proxies don't start together.
                sleep(pace * (self.number % 100) / 100).await;
            }
            // Said first, so that whoever ends the phase sees it or is seen.
            self.tally.busy.store(true, Ordering::SeqCst);
            if *self.phase.borrow() != Phase::Report {
                self.tally.busy.store(false, Ordering::SeqCst);
                continue;
            }
            wave += 1;
            let begin = Instant::now();
            let done = self.wave(&socket, traffic, wave, &mut ack).await;
            let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.tally.slowest.fetch_max(took, Ordering::Relaxed);
            self.tally.busy.store(false, Ordering::SeqCst);
            if let Err(error) = done {
                eprintln!("proxy {}: {error}", self.number);
                return;
            }
            sleep_until(begin + pace).await;
        }
    }

    /// One report, until it is safe.
    async fn wave(
        &self,
        socket: &UnixDatagram,
        traffic: Traffic,
        wave: u64,
        ack: &mut watch::Receiver<u64>,
    ) -> io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let rows = traffic.wave(self.number, wave, now);
        let mut datagrams: Vec<Vec<u8>> = Connections::split(&rows)
            .map(|part| part.encode())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        if traffic.shape == Shape::Everything {
            let more = everything::batched(self.number, wave, now).map_err(io::Error::other)?;
            datagrams.extend(more);
            let loose = everything::loose(self.number, wave).map_err(io::Error::other)?;
            for datagram in loose {
                socket.send(&datagram).await?;
            }
        }
        let count = u16::try_from(datagrams.len()).map_err(io::Error::other)?;
        let batch =
            Batch { instance: Instance(u64::from(self.number) + 1), seq: wave, datagrams: count };
        let announcement = batch.encode().map_err(io::Error::other)?;
        loop {
            if self.manner == Manner::Ours {
                socket.send(&announcement).await?;
            }
            for datagram in &datagrams {
                socket.send(datagram).await?;
            }
            let stored = ack.wait_for(|seq| *seq >= wave);
            if self.manner == Manner::Foreign {
                break;
            }
            match timeout(PATIENCE, stored).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_elapsed) => self.tally.repeated.fetch_add(1, Ordering::Relaxed),
            };
        }
        let mut sums = self.tally.sums.lock();
        for row in &rows {
            if let Some(key) = traffic.key(row) {
                let sum = sums.entry(key).or_default();
                *sum = (sum.0 + u64::from(row.sessions), sum.1 + u64::from(row.bytes));
            }
        }
        self.tally.waves.fetch_add(1, Ordering::Relaxed);
        self.tally
            .rows
            .fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// The socket that notifications go out by, once the bridge listens.
pub(super) async fn connect(mailbox: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    while socket.connect(mailbox.join(names::CTRL_LISTEN)).is_err() {
        sleep(AGAIN).await;
    }
    Ok(socket)
}

/// The requests' side.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) socket: UnixDatagram,
    pub(super) manner: Manner,
    pub(super) tally: Arc<Tally>,
    /// The last batch that is stored.
    pub(super) acked: watch::Sender<u64>,
}

impl Answering {
    /// Answers as long as it is polled.
    pub(super) async fn run(self) {
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer).await else { return };
            let Some(from) = from.as_pathname() else { continue };
            for request in self.read(buffer.get(..length).unwrap_or_default()) {
                let Some(Ok(reply)) = self.obey(&request).map(|reply| reply.encode()) else {
                    continue;
                };
                // An answer that finds no room is one that a slow bridge lost.
                let _sent = self.socket.send_to(&reply, from).await;
            }
        }
    }

    fn read(&self, datagram: &[u8]) -> Vec<Request> {
        let unreadable = |count| self.tally.unreadable.fetch_add(count, Ordering::Relaxed);
        let Ok(commands) = Request::parse_datagram(datagram) else {
            unreadable(1);
            return Vec::new();
        };
        let (good, bad): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .map(|command| command.request)
            .partition(Result::is_ok);
        unreadable(bad.len() as u64);
        good.into_iter().flatten().collect()
    }

    fn obey(&self, request: &Request) -> Option<Reply> {
        match request {
            Request::KeepAlive(asked) => {
                self.tally.keep_alives.fetch_add(1, Ordering::Relaxed);
                Some(KeepAlive { seq_num: asked.seq_num }.into())
            }
            Request::OutriderHello(_) if self.manner == Manner::Ours => {
                Some(Status { version: "load".into(), ..Status::default() }.into())
            }
            Request::OutriderAck(ack) => {
                self.acked.send_replace(ack.seq);
                None
            }
            _ => None,
        }
    }
}
