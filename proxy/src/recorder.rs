//! Packet captures that the bridge asks for (`docs/packets.md`): each on a thread of its own, with a
//! tap of its own, into a pipe that came with the order. Nobody waits for a capture: where its reader
//! is slow, or packets come faster than a capture may take them, the kernel has no room for more, and
//! counts them.

mod budget;
mod recording;

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use outrider_capture::{Filter, Tap, TapSettings};
use outrider_model::PacketFilter;
use outrider_wire::ext::{CaptureOrder, CaptureReply, Instance};
use tokio::{net::unix::pipe, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::recording::{Bounds, Recording};
use crate::rights::Rights;

/// The captures of this pod.
#[derive(Debug)]
pub(crate) struct Recorder {
    may_tap: bool,
    running: Vec<Running>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
}

#[derive(Debug)]
struct Running {
    id: Instance,
    stop: CancellationToken,
    /// Set before whoever reads learns of the end, who may order the next one at once.
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

/// What is to be said to who gave an order.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Who it was.
    pub to: Option<Arc<Path>>,
    /// Whether packets are captured now.
    pub reply: CaptureReply,
}

impl Recorder {
    /// A recorder of a proxy with these rights.
    #[must_use]
    pub(crate) fn new(rights: &Rights) -> Self {
        Self { may_tap: rights.tap(), running: Vec::new(), answers: mpsc::channel(MAX_ANSWERS) }
    }

    /// Starts a capture; the answer comes by [`Self::answer`].
    pub(crate) fn start(
        &mut self,
        order: CaptureOrder,
        pipe: Option<OwnedFd>,
        from: Option<&Arc<Path>>,
    ) {
        let (id, to) = (order.id, from.cloned());
        if let Err(error) = self.try_start(order, pipe, to.clone()) {
            info!(%id, error, "no capture");
            answer(&self.answers.0, to, id, error);
        }
    }

    fn try_start(
        &mut self,
        order: CaptureOrder,
        pipe: Option<OwnedFd>,
        to: Option<Arc<Path>>,
    ) -> Result<(), String> {
        self.running.retain(|running| {
            !running.over.load(Ordering::Acquire) && !running.thread.is_finished()
        });
        if !self.may_tap {
            return Err(NO_RIGHT.to_owned());
        }
        if self.running.iter().any(|running| running.id == order.id) {
            return Err("a capture of that number runs already".to_owned());
        }
        if self.running.len() >= MAX_RUNNING {
            return Err(format!("{MAX_RUNNING} captures of this pod run already: stop one"));
        }
        let pipe = pipe.ok_or("no pipe came with the order")?;
        let packets: PacketFilter = order.filter.parse().map_err(|error| format!("{error}"))?;
        let stop = CancellationToken::new();
        let over = Arc::new(AtomicBool::new(false));
        let work = Work {
            id: order.id,
            stop: stop.clone(),
            over: Arc::clone(&over),
            answers: self.answers.0.clone(),
            to,
        };
        let id = order.id;
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || work.run(&order, packets, pipe))
            .map_err(|error| format!("no thread for a capture: {error}"))?;
        self.running.push(Running { id, stop, over, thread });
        Ok(())
    }

    /// Ends a capture; what was seen is still written.
    pub(crate) fn stop(&mut self, id: Instance) {
        let asked = self.running.iter().find(|running| running.id == id);
        asked.inspect(|running| running.stop.cancel());
    }

    /// The next answer. Cancel safe.
    pub(crate) async fn answer(&mut self) -> Answer {
        match self.answers.1.recv().await {
            Some(answer) => answer,
            // Never: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Ends all captures and waits for them.
    pub(crate) fn finish(&mut self) {
        self.running
            .iter()
            .for_each(|running| running.stop.cancel());
        for running in self.running.drain(..) {
            if running.thread.join().is_err() {
                warn!(id = %running.id, "a capture ended badly");
            }
        }
    }
}

fn answer(answers: &mpsc::Sender<Answer>, to: Option<Arc<Path>>, id: Instance, error: String) {
    let reply = CaptureReply::new(id, error);
    if answers.try_send(Answer { to, reply }).is_err() {
        warn!(%id, "nobody can be told about a capture");
    }
}

/// What a capture's thread has.
struct Work {
    id: Instance,
    stop: CancellationToken,
    over: Arc<AtomicBool>,
    answers: mpsc::Sender<Answer>,
    to: Option<Arc<Path>>,
}

impl Work {
    fn run(self, order: &CaptureOrder, packets: PacketFilter, pipe: OwnedFd) {
        let Self { id, stop, over, answers, to } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return answer(&answers, to, id, error.to_string()),
        };
        runtime.block_on(async {
            let mut recording = match open(order, packets, pipe) {
                Ok(recording) => recording,
                Err(error) => return answer(&answers, to, id, error),
            };
            info!(%id, ?order, "packets are captured");
            answer(&answers, to, id, String::new());
            let (totals, why) = recording.run(stop).await;
            over.store(true, Ordering::Release);
            drop(recording);
            info!(%id, seen = totals.seen, lost = totals.lost, why, "a capture ended");
        });
    }
}

fn open(order: &CaptureOrder, packets: PacketFilter, pipe: OwnedFd) -> Result<Recording, String> {
    let pipe = pipe::Sender::from_owned_fd(pipe)
        .map_err(|error| format!("what came with the order is no pipe to write to: {error}"))?;
    let snap = match order.snap {
        0 => MAX_SNAP,
        snap => snap.clamp(MIN_SNAP, MAX_SNAP),
    };
    let tap = Tap::open(&TapSettings {
        filter: Filter::Matching { packets, loopback: order.loopback },
        snap,
        blocks: RING_BLOCKS,
        ..TapSettings::default()
    });
    let tap = tap.map_err(|error| error.to_string())?;
    let bounds = Bounds {
        snap,
        packets: if order.packets == 0 { u64::MAX } else { order.packets },
        bytes: order.bytes.clamp(MIN_BYTES, MAX_BYTES),
        time: Duration::from_secs(order.seconds.clamp(1, MAX_SECONDS).into()),
    };
    Ok(Recording::new(tap, pipe, bounds))
}

/// Captures of one pod at once.
const MAX_RUNNING: usize = 2;
/// Bytes of each packet that are kept.
const MIN_SNAP: u32 = 64;
const MAX_SNAP: u32 = 65_535;
/// Bytes that one capture writes at most: room for its frame, and 1 GiB.
const MIN_BYTES: u64 = 4096;
const MAX_BYTES: u64 = 1 << 30;
/// Seconds that one capture takes at most.
const MAX_SECONDS: u32 = 3600;
/// Blocks of a capture's ring: 4 MiB, room for a reader that is late by a few milliseconds.
const RING_BLOCKS: u32 = 32;
/// Answers that wait to be sent.
const MAX_ANSWERS: usize = 16;
const NO_RIGHT: &str = "this proxy may not open packet sockets: give its container the capability \
                        NET_RAW";

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: u64) -> CaptureOrder {
        CaptureOrder { id: Instance(id), seconds: 1, bytes: 1000, ..CaptureOrder::default() }
    }

    async fn refused(may_tap: bool, order: CaptureOrder, pipe: Option<OwnedFd>) -> String {
        let mut recorder = Recorder::new(&Rights::default());
        recorder.may_tap = may_tap;
        let to: Arc<Path> = Path::new("/client").into();
        recorder.start(order.clone(), pipe, Some(&to));
        let Answer { to: told, reply } = recorder.answer().await;
        assert_eq!((told, reply.id), (Some(to), order.id));
        recorder.finish();
        reply.error
    }

    #[tokio::test]
    async fn says_why_there_is_no_capture() {
        assert_eq!(refused(false, order(1), None).await, NO_RIGHT);
        assert!(refused(true, order(1), None).await.contains("no pipe came"));
        let pipe = |writes: bool| {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            Some(if writes { writer } else { reader })
        };
        let wrong = CaptureOrder { filter: "port http".into(), ..order(1) };
        assert!(
            refused(true, wrong, pipe(true))
                .await
                .contains("is no port")
        );
        assert!(
            refused(true, order(1), pipe(false))
                .await
                .contains("no pipe to write to")
        );
        let file = tempfile::tempfile().unwrap();
        assert!(
            refused(true, order(1), Some(file.into()))
                .await
                .contains("no pipe to write to")
        );
    }
}
