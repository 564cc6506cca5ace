//! The part of a direction that the kernel does: splice(2), from when it pays until it no longer does.

use std::{
    io,
    task::{Context, Poll, ready},
};

use outrider_dpi::Need;
use tokio::{io::Interest, net::TcpStream, task::coop};

use super::{Fault, Half, Pace};
use crate::{
    inspection::Inspection,
    pipe::{CAPACITY, Pipe},
    scratch::{self, CHUNK},
};

impl Half {
    /// Empties the pipe into the taker.
    pub(super) fn drain(
        &mut self,
        context: &mut Context<'_>,
        to: &mut TcpStream,
        inspection: &Inspection,
    ) -> Poll<io::Result<()>> {
        while let Some((pipe, left)) = &mut self.piped {
            match to.try_io(Interest::WRITABLE, || pipe.drain(&*to, *left)) {
                Ok(sent) => {
                    inspection.flow().count(self.side, sent as u64);
                    *left = left.saturating_sub(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Some((pipe, _)) = self.piped.take_if(|(_, left)| *left == 0) {
                pipe.give();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// How much the kernel may move by itself; `None`: the bytes are to be looked at, or few.
    pub(super) fn splice_limit(&self, inspection: &Inspection) -> Option<usize> {
        if self.holding {
            return None;
        }
        match inspection.need(self.side) {
            Need::Nothing if self.pace == Pace::Bulk => Some(CAPACITY),
            Need::Skip(bytes) if bytes >= CHUNK as u64 && self.pace != Pace::Trickle => {
                Some(usize::try_from(bytes).unwrap_or(CAPACITY).min(CAPACITY))
            }
            _ => None,
        }
    }

    /// Fills a pipe from the sender.
    pub(super) fn splice(
        &mut self,
        context: &mut Context<'_>,
        from: &TcpStream,
        inspection: &mut Inspection,
        limit: usize,
    ) -> Poll<Result<(), Fault>> {
        let budget = ready!(coop::poll_proceed(context));
        let pipe = match Pipe::take() {
            Ok(pipe) => pipe,
            Err(error) => {
                tracing::debug!(%error, "no pipe, copying");
                self.pace = Pace::Trickle;
                return Poll::Ready(Ok(()));
            }
        };
        let moved = match from.try_io(Interest::READABLE, || pipe.fill(from, limit)) {
            Ok(moved) => moved,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.give();
                self.ran_dry();
                return from
                    .poll_read_ready(context)
                    .map_err(|_| Fault::Reset(self.side));
            }
            Err(_) => return Poll::Ready(Err(Fault::Reset(self.side))),
        };
        budget.made_progress();
        if moved == 0 {
            pipe.give();
            return Poll::Ready(scratch::with(|scratch| self.end(inspection, &mut scratch.events)));
        }
        self.piped = Some((pipe, moved));
        self.run += moved;
        let step =
            scratch::with(|scratch| inspection.skip(self.side, moved as u64, &mut scratch.events));
        Poll::Ready(self.follow(step))
    }

    /// The sender has no more for now: was it worth splicing?
    fn ran_dry(&mut self) {
        if self.run > 0 && self.run < WORTH_SPLICING {
            self.pace = Pace::Trickle;
        }
        self.run = 0;
    }
}

/// Bytes at once from which a splice is cheaper than a copy.
const WORTH_SPLICING: usize = 16 * 1024;
