//! A copy of every frame that passes an interface.

mod block;
mod filter;

use std::{io, time::Duration};

use outrider_model::Direction;
use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::{CaptureError, sys};
pub use filter::{Filter, MAX_FILTER_PORTS};

/// How a tap is set up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TapSettings {
    /// Name of the interface, `None` for all of them, those made later included.
    pub interface: Option<String>,
    /// Which TCP segments are copied.
    pub filter: Filter,
    /// Bytes of each frame that are copied.
    pub snap: u32,
    /// Size of a block: a power of two of at least 4 KiB. A frame that is larger is cut.
    pub block_bytes: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// How long a block that is not full may wait, in steps of the kernel's clock tick.
    pub timeout: Duration,
    /// Shares the frames, flow by flow, with other taps that name the same number.
    pub fanout: Option<u16>,
}

impl Default for TapSettings {
    fn default() -> Self {
        Self {
            interface: None,
            filter: Filter::Everything,
            snap: 65_535,
            block_bytes: 128 * 1024,
            blocks: 16,
            timeout: Duration::from_millis(20),
            fanout: None,
        }
    }
}

/// Memory that a tap's ring may take: the kernel can't swap it.
pub const MAX_RING_BYTES: u64 = 64 * 1024 * 1024;

/// How a frame begins.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Link {
    /// With Ethernet addresses.
    Ethernet,
    /// With the IP header: a tunnel's interface.
    Raw,
    /// Otherwise; the kernel's number of the hardware type.
    Other(u16),
}

impl Link {
    pub(crate) fn from_hardware(number: u16) -> Self {
        match number {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Self::Ethernet,
            libc::ARPHRD_NONE
            | RAWIP
            | libc::ARPHRD_PPP
            | libc::ARPHRD_TUNNEL
            | libc::ARPHRD_TUNNEL6
            | libc::ARPHRD_SIT => Self::Raw,
            other => Self::Other(other),
        }
    }
}

/// One frame, as long as it is being looked at.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When the kernel saw it, since 1970.
    pub at: Duration,
    /// Number of the interface.
    pub interface: u32,
    /// Whether it came in or went out by that interface; on loopback every frame comes in.
    pub direction: Direction,
    /// It came in, but for another machine's address.
    pub foreign: bool,
    /// How it begins.
    pub link: Link,
    /// The interface is loopback.
    pub loopback: bool,
    /// Its VLAN, if the kernel took the tag off; the tag stands in `bytes` again.
    pub vlan: Option<u16>,
    /// It went out with a checksum that the hardware was to fill in.
    pub unfinished_checksum: bool,
    /// What was copied of it.
    pub bytes: &'a [u8],
    /// How long it is.
    pub wire: usize,
}

/// Frames since the tap was opened. `seen` is the sum of `shown`, `lost` and those still in the ring.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TapCounters {
    /// Passed the filter, by the kernel's count.
    pub seen: u64,
    /// Found no room in the ring, by the kernel's count.
    pub lost: u64,
    /// Times that the ring was full.
    pub full: u64,
    /// Frames that `drain` has shown.
    pub shown: u64,
    /// Blocks that made no sense.
    pub torn: u64,
}

/// A copy of every frame that passes one interface, or all. Needs `NET_RAW`.
#[derive(Debug)]
pub struct Tap {
    socket: AsyncFd<Socket>,
    ring: sys::Ring,
    next: usize,
    snap: u32,
    counters: TapCounters,
}

impl Tap {
    /// Starts copying. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is no capability, no such interface, no memory, or a setting is out of its bounds.
    pub fn open(settings: &TapSettings) -> Result<Self, CaptureError> {
        check(settings)?;
        let program = settings.filter.compile(settings.snap)?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(missing_or_failed)?;
        let failed = |step| move |source| CaptureError::Tap { step, source };
        socket.set_nonblocking(true).map_err(failed("set up"))?;
        // Before the socket is bound nothing arrives, and before the filter nothing is copied.
        let before = Filter::nothing();
        socket.attach_filter(&before).map_err(failed("filter"))?;
        let size = (settings.block_bytes, settings.blocks);
        let timeout = u32::try_from(settings.timeout.as_millis()).unwrap_or(u32::MAX);
        let ring = sys::Ring::map(&socket, size, timeout, block::TAG_BYTES)
            .map_err(failed("map a ring"))?;
        let interface = match &settings.interface {
            Some(name) => sys::interface_index(name).map_err(failed("find the interface"))?,
            None => 0,
        };
        sys::bind_packets(&socket, interface).map_err(failed("bind"))?;
        if let Some(group) = settings.fanout {
            sys::join_fanout(&socket, group).map_err(failed("join a fanout group"))?;
        }
        socket.attach_filter(&program).map_err(failed("filter"))?;
        let socket = sys::watch(socket).map_err(failed("watch"))?;
        let counters = TapCounters::default();
        Ok(Self { socket, ring, next: 0, snap: settings.snap, counters })
    }

    /// Replaces the filter in one step. Frames that the old one let in are still shown.
    ///
    /// # Errors
    /// The filter names too many ports, or the kernel refuses it.
    pub fn set_filter(&self, filter: &Filter) -> Result<(), CaptureError> {
        let program = filter.compile(self.snap)?;
        let attached = self.socket.get_ref().attach_filter(&program);
        attached.map_err(|source| CaptureError::Tap { step: "filter", source })
    }

    /// Waits for frames and shows them; returns how many. Dropping the future loses none.
    ///
    /// # Errors
    /// The interface is gone or down; one that comes up again is seen again.
    pub async fn wait(&mut self, visit: impl FnMut(Frame<'_>)) -> Result<u64, CaptureError> {
        self.ready().await?;
        Ok(self.drain(visit))
    }

    /// Waits until a block is ready to be shown. Dropping the future loses none.
    ///
    /// # Errors
    /// The interface is gone or down; one that comes up again is seen again.
    pub async fn ready(&mut self) -> Result<(), CaptureError> {
        let failed = |source| CaptureError::Tap { step: "receive", source };
        loop {
            let mut ready = self
                .socket
                .ready(sys::FRAMES_OR_ERROR)
                .await
                .map_err(failed)?;
            if let Some(error) = self.socket.get_ref().take_error().map_err(failed)? {
                ready.clear_ready();
                return Err(failed(error));
            }
            if self.ring.block(self.next).is_some() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Shows the frames of every block that is ready, one round of the ring at most; returns how many
    /// there were.
    pub fn drain(&mut self, mut visit: impl FnMut(Frame<'_>)) -> u64 {
        let mut total: u64 = 0;
        for _ in 0..self.ring.blocks() {
            let Some(shown) = self.show(&mut visit) else { break };
            total += shown;
        }
        total
    }

    /// Shows the frames of the next block, if one is ready; returns how many there were.
    pub fn show(&mut self, mut visit: impl FnMut(Frame<'_>)) -> Option<u64> {
        let block = self.ring.block(self.next)?;
        let (shown, whole) = block::walk(block, &mut visit);
        self.ring.release(self.next);
        self.next = (self.next + 1) % self.ring.blocks();
        self.counters.torn += u64::from(!whole);
        self.counters.shown += shown;
        Some(shown)
    }

    /// Sends a whole frame on the tap's interface; a tap of all interfaces has none to send on.
    ///
    /// # Errors
    /// The interface does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<(), CaptureError> {
        let sent = self.socket.get_ref().send(frame);
        sent.map_err(|source| CaptureError::Tap { step: "send", source })
            .map(drop)
    }

    /// What was seen and lost so far.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn counters(&mut self) -> Result<TapCounters, CaptureError> {
        let failed = |source| CaptureError::Tap { step: "read counters", source };
        let [seen, lost, full] = sys::take_statistics(self.socket.get_ref()).map_err(failed)?;
        self.counters.seen += u64::from(seen);
        self.counters.lost += u64::from(lost);
        self.counters.full += u64::from(full);
        Ok(self.counters)
    }
}

fn check(settings: &TapSettings) -> Result<(), CaptureError> {
    let bytes = u64::from(settings.block_bytes) * u64::from(settings.blocks);
    if !settings.block_bytes.is_power_of_two() || settings.block_bytes < MIN_BLOCK_BYTES {
        return Err(CaptureError::Setting(
            "a tap's block is a power of two of at least 4096 bytes",
        ));
    }
    if settings.blocks < 2 || bytes > MAX_RING_BYTES {
        return Err(CaptureError::Setting(
            "a tap's ring has two blocks or more, in 64 MiB at most",
        ));
    }
    if settings.timeout.is_zero() || settings.timeout > MAX_TIMEOUT {
        return Err(CaptureError::Setting("a tap's block waits 1 ms to 1 s"));
    }
    Ok(())
}

fn missing_or_failed(source: io::Error) -> CaptureError {
    CaptureError::net_raw("packet socket", source, |source| CaptureError::Tap {
        step: "open",
        source,
    })
}

/// Hardware type of IP without a link header, as of some modems.
const RAWIP: u16 = 519;
const MIN_BLOCK_BYTES: u32 = 4096;
const MAX_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_ring_out_of_bounds() {
        let refused = [
            TapSettings { block_bytes: 2048, ..TapSettings::default() },
            TapSettings { block_bytes: 5000, ..TapSettings::default() },
            TapSettings { blocks: 1, ..TapSettings::default() },
            TapSettings { blocks: 1 << 20, ..TapSettings::default() },
            TapSettings { timeout: Duration::ZERO, ..TapSettings::default() },
            TapSettings { timeout: Duration::from_secs(2), ..TapSettings::default() },
        ];
        for settings in refused {
            assert_eq!(check(&settings).unwrap_err().reason(), "setting", "{settings:?}");
        }
        check(&TapSettings::default()).unwrap();
    }
}
