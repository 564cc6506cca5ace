//! Packets that the kernel holds until somebody says what becomes of them.

mod counters;
mod message;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::Socket;
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use crate::{CaptureError, netlink};
use counters::{Counts, add};
pub use counters::{KernelCounters, QueueCounters};
use message::Message;
pub use message::Queued;

/// How a queue is set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueSettings {
    /// Its number, as in the rule that fills it.
    pub number: u16,
    /// What becomes of packets that nobody decided about: `true` lets them pass, as outside Protect.
    pub open: bool,
    /// Packets that may wait in the kernel.
    pub length: u32,
    /// Packets that may wait for who decides; fewer than `length`, or the kernel is full first.
    pub waiting: usize,
    /// Bytes of each packet that are copied.
    pub copy: u32,
    /// How long a packet may wait.
    pub patience: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        let patience = Duration::from_millis(500);
        Self { number: 0, open: false, length: 2048, waiting: 1024, copy: 2048, patience }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum QueueVerdict {
    /// It goes on to the next table, not to the next rule.
    Accept,
    /// It is gone.
    Drop,
    /// It meets the rules of the same table again, from the first: with a mark, so that a rule before
    /// the queue's can keep the mark for the flow.
    Repeat,
}

/// Memory that packets on their way to who decides may take.
pub const MAX_QUEUE_BYTES: u64 = 64 * 1024 * 1024;
/// Packets that may wait in the kernel at most.
pub const MAX_QUEUE_LENGTH: u32 = 16_384;

/// Reads one queue of the pod, on a thread of its own. Needs `NET_ADMIN`.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    /// The kernel's figures about the queues of this namespace.
    table: Option<File>,
}

/// A packet that waits for a verdict. One that is let go without gets what the mode says.
#[derive(Debug)]
pub struct Held {
    packet: Queued,
    shared: Arc<Shared>,
    decided: bool,
}

impl Queue {
    /// Takes the queue over; its packets come out of the receiver.
    ///
    /// # Errors
    /// There is no capability, another reader has the queue, or a setting is out of its bounds.
    pub fn open(settings: &QueueSettings) -> Result<(Self, mpsc::Receiver<Held>), CaptureError> {
        check(settings)?;
        let failed = |step| move |source| CaptureError::Queue { step, source };
        let socket = netlink::open(libc::NETLINK_NETFILTER).map_err(failed("open"))?;
        socket
            .set_read_timeout(Some(TICK))
            .map_err(failed("set up"))?;
        if let Err(error) = socket.set_recv_buffer_size(SOCKET_BYTES) {
            warn!(%error, "a packet queue keeps the kernel's default of socket memory");
        }
        let early = bind(&socket, settings).map_err(|source| {
            CaptureError::net_admin("packet queue", source, failed("take it over"))
        })?;
        let shared = Arc::new(Shared {
            socket,
            number: settings.number,
            open: AtomicBool::new(settings.open),
            patience: settings.patience,
            waiting: Mutex::default(),
            counts: Counts::default(),
            over: AtomicBool::new(false),
        });
        let (give, take) = mpsc::channel(settings.waiting);
        let mut reader = Reader { shared: Arc::clone(&shared), give, last: 0 };
        let name = format!("queue-{}", settings.number);
        let work = move || {
            reader.datagram(&early);
            reader.run();
        };
        let reader = thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(failed("start"))?;
        let table = File::open(KERNEL_TABLE).ok();
        Ok((Self { shared, reader: Some(reader), table }, take))
    }

    /// Says what becomes of packets that nobody decided about, from now on.
    ///
    /// # Errors
    /// The kernel takes no message; for packets that reach us the change is in force all the same.
    pub fn set_open(&self, open: bool) -> Result<(), CaptureError> {
        self.shared.open.store(open, Ordering::Relaxed);
        let request = message::set_open(self.shared.number, open);
        let sent = self.shared.socket.send(&request);
        sent.map(drop)
            .map_err(|source| CaptureError::Queue { step: "set its mode", source })
    }

    /// What was received, decided and lost so far.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        let kernel = self.table.as_ref().and_then(|table| {
            let table = counters::read(table).ok()?;
            counters::of_kernel(&table, self.shared.number)
        });
        self.shared.counts.snapshot(kernel)
    }
}

impl Drop for Queue {
    /// Waits for the reader, 0.1 s at most. Whatever waits gets what the mode says.
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            warn!("the reader of a packet queue has panicked");
        }
        self.shared.close();
    }
}

impl Held {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> &Queued {
        &self.packet
    }

    /// Says what becomes of it, and with which mark. Any thread may.
    pub fn decide(mut self, verdict: QueueVerdict, mark: Option<u32>) {
        self.decided = true;
        let counts = &self.shared.counts;
        if self.shared.settle(self.packet.id, verdict, mark) {
            add(&counts.decided, 1);
        } else {
            add(&counts.late, 1);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.decided
            && self
                .shared
                .settle(self.packet.id, self.shared.default(), None)
        {
            add(&self.shared.counts.undecided, 1);
        }
    }
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    number: u16,
    open: AtomicBool,
    patience: Duration,
    /// Packets without a verdict, and since when. Their number is bounded by the kernel's queue.
    waiting: Mutex<BTreeMap<u32, Instant>>,
    counts: Counts,
    over: AtomicBool,
}

impl Shared {
    /// What becomes of a packet that nobody decided about.
    fn default(&self) -> QueueVerdict {
        if self.open.load(Ordering::Relaxed) { QueueVerdict::Accept } else { QueueVerdict::Drop }
    }

    /// Gives the verdict, unless the packet has had one.
    fn settle(&self, id: u32, verdict: QueueVerdict, mark: Option<u32>) -> bool {
        if self.waiting.lock().remove(&id).is_none() {
            return false;
        }
        let verdict = message::verdict(self.number, id, verdict, mark);
        if self.socket.send(&verdict).is_err() {
            add(&self.counts.refused, 1);
        }
        true
    }

    /// Lets go of everything and gives the queue up, even while packets of it are still held: the rule
    /// decides from here on.
    fn close(&self) {
        self.expire(None);
        if self.socket.send(&message::unbind(self.number)).is_err() {
            add(&self.counts.refused, 1);
        }
    }

    /// Lets go of what has waited since `limit` or longer, of everything without a limit.
    fn expire(&self, limit: Option<Instant>) {
        let due = |since: &Instant| limit.is_none_or(|limit| *since <= limit);
        let expired: Vec<u32> = {
            let waiting = self.waiting.lock();
            waiting
                .iter()
                .take_while(|(_, since)| due(since))
                .map(|(id, _)| *id)
                .collect()
        };
        for id in expired {
            if self.settle(id, self.default(), None) {
                add(&self.counts.stalled, 1);
            }
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    give: mpsc::Sender<Held>,
    last: u32,
}

impl Reader {
    fn run(&mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        let mut swept = Instant::now();
        while !self.shared.over.load(Ordering::Relaxed) {
            match (&self.shared.socket).read(&mut buffer) {
                Ok(length) => self.datagram(buffer.get(..length).unwrap_or_default()),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    warn!(%error, queue = self.shared.number, "a packet queue cannot be read");
                    return self.shared.close();
                }
            }
            let now = Instant::now();
            if now.duration_since(swept) >= TICK {
                swept = now;
                self.shared.expire(now.checked_sub(self.shared.patience));
            }
        }
    }

    fn datagram(&mut self, datagram: &[u8]) {
        message::read(datagram, |message| match message {
            Message::Packet(packet) => self.packet(packet),
            Message::Answer { error: 0, .. } => {}
            Message::Answer { .. } => add(&self.shared.counts.refused, 1),
            Message::Unknown => add(&self.shared.counts.malformed, 1),
        });
    }

    fn packet(&mut self, packet: Queued) {
        let counts = &self.shared.counts;
        add(&counts.received, 1);
        let id = packet.id;
        add(&counts.lost, u64::from(id.wrapping_sub(self.last).saturating_sub(1)));
        self.last = id;
        self.shared.waiting.lock().insert(id, Instant::now());
        let held = Held { packet, shared: Arc::clone(&self.shared), decided: false };
        if let Err(error) = self.give.try_send(held) {
            let (mpsc::error::TrySendError::Full(mut held)
            | mpsc::error::TrySendError::Closed(mut held)) = error;
            held.decided = true;
            if self.shared.settle(id, self.shared.default(), None) {
                add(&self.shared.counts.overflow, 1);
            }
        }
    }
}

/// Sends the request and reads until it is answered; returns what came before the answer.
fn bind(mut socket: &Socket, settings: &QueueSettings) -> io::Result<Vec<u8>> {
    let request = message::bind(settings.number, settings.length, settings.copy, settings.open);
    socket.send(&request)?;
    let mut early = Vec::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    for _ in 0..=settings.length {
        let length = match socket.read(&mut buffer) {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
            other => other?,
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        let mut answer = None;
        message::read(datagram, |message| answer = message::answer(&message).or(answer.take()));
        match answer {
            Some(answer) => return answer.map(|()| early),
            None => early.extend_from_slice(datagram),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// Nothing came, or more than the socket holds: the numbers of the packets tell how many were lost.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn check(settings: &QueueSettings) -> Result<(), CaptureError> {
    let bytes = u64::from(settings.copy).saturating_mul(settings.waiting as u64);
    if settings.length == 0 || settings.length > MAX_QUEUE_LENGTH {
        return Err(CaptureError::Setting("a queue holds 1 to 16384 packets"));
    }
    if settings.waiting == 0 || settings.copy > MAX_COPY || bytes > MAX_QUEUE_BYTES {
        return Err(CaptureError::Setting(
            "packets of a queue take 64 MiB at most, of 64 KiB each",
        ));
    }
    if settings.patience < TICK || settings.patience > MAX_PATIENCE {
        return Err(CaptureError::Setting("a queued packet waits 0.1 s to 10 s"));
    }
    Ok(())
}

/// How often the reader looks at the clock, at least.
const TICK: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(10);
const MAX_COPY: u32 = 65_531;
/// A packet of the greatest length, with all that is said of it.
const DATAGRAM_BYTES: usize = 65_536 + 4096;
/// Socket memory asked for; the kernel caps it at `net.core.rmem_max`.
const SOCKET_BYTES: usize = 2 * 1024 * 1024;
const KERNEL_TABLE: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn refuses_settings_out_of_bounds() {
        let good = QueueSettings::default();
        check(&good).unwrap();
        let refused = [
            QueueSettings { length: 0, ..good },
            QueueSettings { length: MAX_QUEUE_LENGTH + 1, ..good },
            QueueSettings { waiting: 0, ..good },
            QueueSettings { copy: 65_531, waiting: 1025, ..good },
            QueueSettings { copy: 65_532, ..good },
            QueueSettings { patience: Duration::from_millis(1), ..good },
            QueueSettings { patience: Duration::from_secs(11), ..good },
        ];
        for settings in refused {
            assert_eq!(check(&settings).unwrap_err().reason(), "setting", "{settings:?}");
        }
    }

    #[test]
    fn a_gap_in_the_numbers_is_loss() {
        let shared = Arc::new(Shared {
            socket: Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap(),
            number: 5,
            open: AtomicBool::new(false),
            patience: Duration::from_secs(1),
            waiting: Mutex::default(),
            counts: Counts::default(),
            over: AtomicBool::new(false),
        });
        let (give, packets) = mpsc::channel(8);
        let mut reader = Reader { shared: Arc::clone(&shared), give, last: u32::MAX - 1 };
        for id in [u32::MAX, 0, 3, 4, 9] {
            reader.packet(Queued { id, ..Queued::default() });
        }
        let counters = shared.counts.snapshot(None);
        assert_eq!((counters.received, counters.lost), (5, 2 + 4));
        drop(packets);
        assert_eq!(shared.counts.snapshot(None).undecided, 5);
    }
}
