//! Two interfaces joined to each other, with us or the kernel between them.

mod end;
mod redirect;
mod slot;

use std::io;

use outrider_model::Direction;

use crate::{CaptureError, Frame};
use end::{End, Received};
use redirect::Redirect;
use slot::OFFLOADS;

/// Who takes frames from one interface of a [`Pair`] to the other.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum PairPath {
    /// Nobody: what arrives is shown and dropped.
    #[default]
    Closed,
    /// We do, frame by frame, as the verdict says. If the process dies nothing is forwarded.
    Ring,
    /// The kernel does, by redirection in traffic control; what arrives is shown all the same. If the
    /// process dies it goes on.
    Kernel,
}

/// What becomes of a frame on [`PairPath::Ring`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PairVerdict {
    /// It leaves by the other interface.
    Forward,
    /// It is gone.
    Drop,
}

/// Frames since the pair was opened, both ways together. `seen` is the sum of `lost`, of those still in
/// the rings, and of all counts below.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PairCounters {
    /// Came in, by the kernel's count.
    pub seen: u64,
    /// Found no room in the ring, by the kernel's count: not forwarded but on the kernel's path.
    pub lost: u64,
    /// Left by the other interface, through us.
    pub forwarded: u64,
    /// Dropped by verdict.
    pub dropped: u64,
    /// Dropped because the path was closed.
    pub closed: u64,
    /// Copies of frames that the kernel took to the other side.
    pub copies: u64,
    /// Longer than what can be taken whole: never shown, and forwarded by nobody but the kernel.
    pub cut: u64,
    /// Longer than the other interface takes.
    pub too_long: u64,
    /// The other interface did not take them for another reason.
    pub unsent: u64,
}

/// Two Ethernet interfaces joined to each other. Needs `NET_RAW` and `NET_ADMIN`.
///
/// Frames keep their addresses, tags, checksums still to be filled in, and their length: one that the
/// kernel has not cut into segments yet leaves as it came. Both interfaces are promiscuous for as
/// long as the pair is there; nothing else about them is changed that is not undone.
#[derive(Debug)]
pub struct Pair {
    /// First, so that the kernel stops before we do.
    redirect: Redirect,
    ends: [End; 2],
    between: Between,
}

/// What happens to a frame between the two interfaces.
#[derive(Debug)]
struct Between {
    path: PairPath,
    buffer: Vec<u8>,
    counters: PairCounters,
}

impl Pair {
    /// Joins `outer`, behind which the network is, with `inner`, behind which the pod is. The path is
    /// closed at first. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is no capability, no such interface, or no memory.
    pub fn open(outer: &str, inner: &str) -> Result<Self, CaptureError> {
        if outer == inner {
            return Err(CaptureError::Setting("a pair has two interfaces"));
        }
        let end = |name, direction| End::open(name, direction).map_err(missing_or_failed);
        let ends = [end(outer, Direction::Inbound)?, end(inner, Direction::Outbound)?];
        let interfaces = [ends[0].interface, ends[1].interface];
        let redirect = Redirect::open(interfaces)
            .map_err(|source| missing_or_failed(("set up redirection", source)))?;
        let between = Between {
            path: PairPath::default(),
            buffer: vec![0; end::BUFFER_BYTES],
            counters: PairCounters::default(),
        };
        Ok(Self { redirect, ends, between })
    }

    /// Numbers of the outer and the inner interface.
    #[must_use]
    pub fn interfaces(&self) -> [u32; 2] {
        [self.ends[0].interface, self.ends[1].interface]
    }

    /// Who forwards.
    #[must_use]
    pub fn path(&self) -> PairPath {
        self.between.path
    }

    /// Changes who forwards. No frame is forwarded twice; those that arrive while the kernel's part is
    /// made or removed may be lost.
    ///
    /// # Errors
    /// The kernel refuses the redirection, and the path is the ring; or it refuses to end it, and the
    /// kernel still forwards.
    pub fn set_path(&mut self, path: PairPath) -> Result<(), CaptureError> {
        let failed = |step| move |source| CaptureError::Pair { step, source };
        if path == PairPath::Kernel {
            let turned = self.redirect.turn_on().map_err(failed("redirect"));
            self.between.path = if turned.is_ok() { path } else { PairPath::Ring };
            return turned;
        }
        if self.redirect.is_on() {
            self.redirect
                .turn_off()
                .map_err(failed("end the redirection"))?;
            // What is in the rings the kernel has forwarded.
            self.drain(|_| PairVerdict::Drop);
        }
        self.between.path = path;
        Ok(())
    }

    /// Waits until a frame has come. Dropping the future loses none.
    ///
    /// # Errors
    /// An interface is gone or down; one that comes up again goes on.
    pub async fn wait(&mut self) -> Result<(), CaptureError> {
        let [outer, inner] = &mut self.ends;
        let waited = tokio::select! {
            biased;
            waited = outer.wait() => waited,
            waited = inner.wait() => waited,
        };
        waited.map_err(|source| CaptureError::Pair { step: "receive", source })
    }

    /// Shows frames that have come, a few hundred of each interface at most, and does with each what
    /// the path, or on the ring `decide`, says. [`Frame::direction`] is the pod's: what comes in by the
    /// outer interface is inbound. Returns how many there were.
    pub fn drain(&mut self, mut decide: impl FnMut(&Frame<'_>) -> PairVerdict) -> u64 {
        let [outer, inner] = &mut self.ends;
        let inward = self.between.transfer(outer, inner, &mut decide);
        inward + self.between.transfer(inner, outer, &mut decide)
    }

    /// Sends a frame of our own out of the interface by which frames of that direction come in: it
    /// answers one of them. Not counted here.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn send(&mut self, answers: Direction, frame: &[u8]) -> io::Result<()> {
        let [outer, inner] = &self.ends;
        let end = if answers == Direction::Inbound { outer } else { inner };
        end.send(&[&[0; OFFLOADS], frame].concat())
    }

    /// What came and became of it so far.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn counters(&mut self) -> Result<PairCounters, CaptureError> {
        let failed = |source| CaptureError::Pair { step: "read counters", source };
        let [outer, inner] = &mut self.ends;
        let [outer, inner] = [outer.seen().map_err(failed)?, inner.seen().map_err(failed)?];
        let (seen, lost) = (outer[0] + inner[0], outer[1] + inner[1]);
        Ok(PairCounters { seen, lost, ..self.between.counters })
    }
}

impl Between {
    /// Takes frames out at one end; returns how many.
    fn transfer(
        &mut self,
        from: &mut End,
        to: &End,
        decide: &mut impl FnMut(&Frame<'_>) -> PairVerdict,
    ) -> u64 {
        let (path, counters) = (self.path, &mut self.counters);
        for count in 0..BATCH {
            let mut show = |received: Received<'_>| {
                let count = match received {
                    Received::Cut => &mut counters.cut,
                    Received::Frame(frame, bytes) => match (path, decide(&frame)) {
                        (PairPath::Closed, _) => &mut counters.closed,
                        (PairPath::Kernel, _) => &mut counters.copies,
                        (PairPath::Ring, PairVerdict::Drop) => &mut counters.dropped,
                        (PairPath::Ring, PairVerdict::Forward) => match to.send(bytes) {
                            Ok(()) => &mut counters.forwarded,
                            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                                &mut counters.too_long
                            }
                            Err(_) => &mut counters.unsent,
                        },
                    },
                };
                *count += 1;
            };
            if !from.take(&mut self.buffer, &mut show) {
                return count;
            }
        }
        BATCH
    }
}

fn missing_or_failed((step, source): (&'static str, io::Error)) -> CaptureError {
    let failed = |source| CaptureError::Pair { step, source };
    CaptureError::or_missing("NET_ADMIN and NET_RAW", "pair of interfaces", source, failed)
}

/// Frames of one end that are taken out before the other end has its turn.
const BATCH: u64 = 256;
