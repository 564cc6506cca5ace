//! One interface of a pair: frames that come in by it, frames that leave by it.

use std::io::{self, Read};

use nix::sys::socket::{setsockopt, sockopt};
use outrider_model::Direction;
use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::slot::{Header, OFFLOADS, TAG_BYTES};
use crate::{Filter, Frame, sys};

/// One interface, its ring, and what was counted there.
#[derive(Debug)]
pub(super) struct End {
    pub(super) interface: u32,
    socket: AsyncFd<Socket>,
    ring: sys::Ring,
    next: usize,
    /// Which way the pod's traffic goes that comes in here.
    direction: Direction,
    seen: [u64; 2],
}

/// What was received.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// A frame, and the same with its offloads, as it is sent.
    Frame(Frame<'a>, &'a [u8]),
    /// One that was too long for slot and queue.
    Cut,
}

impl End {
    /// Must be called inside a tokio runtime, on a thread of the interface's namespace.
    pub(super) fn open(
        name: &str,
        direction: Direction,
    ) -> Result<Self, (&'static str, io::Error)> {
        let step = |step| move |error| (step, error);
        let interface = sys::interface_index(name).map_err(step("find the interface"))?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(step("open"))?;
        let setup = step("set up");
        socket.set_nonblocking(true).map_err(setup)?;
        // Before the socket is bound nothing arrives, and before the filter nothing is copied.
        socket.attach_filter(&Filter::nothing()).map_err(setup)?;
        sys::with_offloads(&socket).map_err(setup)?;
        sys::only_incoming(&socket).map_err(setup)?;
        sys::queue_large(&socket).map_err(setup)?;
        let no_room = step("have memory");
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)
            .map_err(|errno| no_room(errno.into()))?;
        setsockopt(&socket, sockopt::SndBufForce, &QUEUE_BYTES)
            .map_err(|errno| no_room(errno.into()))?;
        let reserve = u32::try_from(TAG_BYTES).unwrap_or_default();
        let ring = sys::Ring::slots(&socket, SLOTS, reserve).map_err(step("map a ring"))?;
        sys::bind_packets(&socket, interface).map_err(step("bind"))?;
        sys::promiscuous(&socket, interface).map_err(step("see every frame"))?;
        socket.attach_filter(&Filter::whole()).map_err(setup)?;
        let socket = sys::watch(socket).map_err(step("watch"))?;
        Ok(Self { interface, socket, ring, next: 0, direction, seen: [0; 2] })
    }

    /// Waits until there is a frame. Dropping the future loses none.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.ready(sys::FRAMES_OR_ERROR).await?;
            if let Some(error) = self.socket.get_ref().take_error()? {
                ready.clear_ready();
                return Err(error);
            }
            if self.ring.block(self.next).is_some() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Takes the next frame out, if there is one, and shows it. `buffer` is for a frame that did not
    /// fit its slot, and has [`BUFFER_BYTES`].
    pub(super) fn take(&mut self, buffer: &mut [u8], show: impl FnOnce(Received<'_>)) -> bool {
        let Some(slot) = self.ring.block(self.next) else { return false };
        let header = Header::read(slot);
        let queued = header.is_some_and(|header| header.queued);
        let received = if queued {
            let room = buffer.get_mut(TAG_BYTES..).unwrap_or_default();
            self.socket.get_ref().read(room).unwrap_or_default()
        } else {
            0
        };
        let frame = header.and_then(|header| {
            let bytes =
                if queued { header.in_buffer(buffer, received) } else { header.in_slot(slot) };
            bytes.map(|bytes| (header, &*bytes))
        });
        show(match frame {
            Some((header, bytes)) => Received::Frame(header.frame(bytes, self.direction), bytes),
            None => Received::Cut,
        });
        self.ring.release(self.next);
        self.next = (self.next + 1) % self.ring.blocks();
        true
    }

    /// Sends a frame with its offloads in front.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(bytes).map(drop)
    }

    /// Frames that came in, and those of them that found no room, by the kernel's count.
    pub(super) fn seen(&mut self) -> io::Result<[u64; 2]> {
        let [seen, lost, _] = sys::take_statistics(self.socket.get_ref())?;
        self.seen[0] += u64::from(seen);
        self.seen[1] += u64::from(lost);
        Ok(self.seen)
    }
}

/// Room for the largest frame that is not cut, its tag and its offloads.
pub(super) const BUFFER_BYTES: usize = TAG_BYTES + OFFLOADS + MAX_FRAME + 1;
/// The largest IP packet, behind the longest header of its frame.
const MAX_FRAME: usize = 65_535 + 64;
/// Slots of a ring, 2 KiB each, which the kernel can't swap.
const SLOTS: u32 = 2048;
/// Memory that large frames may take on the way in, and frames on the way out.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
