//! Who owns the ends of connections in one pod.

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    runtime::{Builder, Handle},
    sync::watch,
    time::Instant,
};

/// Bytes that are read or written at once.
const CHUNK: usize = 64 << 10;

/// Between two words of a chat.
const PAUSE: Duration = Duration::from_millis(1);

/// What an end does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    /// It reads what comes.
    Idle,
    /// It reads what comes and sends as fast as it can.
    Busy,
    /// It reads what comes and sends a little every now and then.
    Chatting,
    /// It sends, and reads nothing.
    Stalled,
}

/// One end of a connection, as its owner sees it.
#[derive(Clone, Debug)]
pub(crate) struct End {
    seen: Arc<Seen>,
    traffic: watch::Sender<Traffic>,
}

#[derive(Debug, Default)]
struct Seen {
    read: AtomicU64,
    written: AtomicU64,
    over: Mutex<Option<(io::ErrorKind, Instant)>>,
}

impl Seen {
    fn end(&self, kind: io::ErrorKind) {
        self.over.lock().get_or_insert((kind, Instant::now()));
    }
}

impl End {
    /// Bytes that were read.
    pub(crate) fn read(&self) -> u64 {
        self.seen.read.load(Ordering::Relaxed)
    }

    /// Bytes that were written.
    pub(crate) fn written(&self) -> u64 {
        self.seen.written.load(Ordering::Relaxed)
    }

    /// How it ended, and when its owner was told.
    pub(crate) fn over(&self) -> Option<(io::ErrorKind, Instant)> {
        *self.seen.over.lock()
    }

    /// From now on it does this.
    pub(crate) fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

/// A thread that owns ends.
pub(crate) struct Host(Handle);

impl Host {
    pub(crate) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Ok(Self(handle))
    }

    pub(crate) fn own(&self, stream: TcpStream, traffic: Traffic) -> Result<End> {
        stream.set_nonblocking(true)?;
        let _inside = self.0.enter();
        let (read, write) = tokio::net::TcpStream::from_std(stream)?.into_split();
        let (sender, receiver) = watch::channel(traffic);
        let end = End { seen: Arc::default(), traffic: sender };
        self.0
            .spawn(reading(read, Arc::clone(&end.seen), receiver.clone()));
        self.0
            .spawn(writing(write, Arc::clone(&end.seen), receiver));
        Ok(end)
    }
}

async fn reading(
    mut stream: OwnedReadHalf,
    seen: Arc<Seen>,
    mut traffic: watch::Receiver<Traffic>,
) {
    let mut buffer = vec![0; CHUNK];
    while traffic
        .wait_for(|traffic| *traffic != Traffic::Stalled)
        .await
        .is_ok()
    {
        match stream.read(&mut buffer).await {
            Ok(0) => return seen.end(io::ErrorKind::UnexpectedEof),
            Ok(count) => seen.read.fetch_add(count as u64, Ordering::Relaxed),
            Err(error) => return seen.end(error.kind()),
        };
    }
}

async fn writing(
    mut stream: OwnedWriteHalf,
    seen: Arc<Seen>,
    mut traffic: watch::Receiver<Traffic>,
) {
    let chunk = vec![7; CHUNK];
    while let Ok(now) = traffic
        .wait_for(|now| *now != Traffic::Idle)
        .await
        .map(|now| *now)
    {
        let length = if now == Traffic::Chatting { CHUNK / 64 } else { CHUNK };
        match stream.write(&chunk[..length]).await {
            Ok(count) => seen.written.fetch_add(count as u64, Ordering::Relaxed),
            Err(error) => return seen.end(error.kind()),
        };
        if now == Traffic::Chatting {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
