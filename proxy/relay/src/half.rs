//! One direction of a flow: from the side that sends to the side that takes.

mod kernel;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use outrider_dpi::Event;
use outrider_model::Side;
use outrider_telemetry::Outcome;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};

use crate::{
    inspection::{Inspection, Step},
    pipe::Pipe,
    scratch::{self, CHUNK},
};

/// Why the whole flow ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The side reset its connection.
    Reset(Side),
    /// Policy or a threat's action ends the flow.
    Stop(Outcome),
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// More may come.
    Open,
    /// The sender said its end; what is left goes on.
    Ended,
    /// Everything went on, and so did the end.
    Done,
    /// The taker takes no more.
    Broken,
}

/// How bytes come, which says whether the kernel had better move them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    Unknown,
    /// A read filled the buffer: there is more than we can copy at once.
    Bulk,
    /// A splice moved little: its three calls cost more than a copy.
    Trickle,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Half {
    side: Side,
    stage: Stage,
    pace: Pace,
    holding: bool,
    /// The end is not passed on: the connection will be reset instead.
    abrupt: bool,
    /// What the taker could not take yet, or may not have yet: empty while the flow waits for bytes.
    stash: Vec<u8>,
    sent: usize,
    /// A pipe and how much is in it; there only while that is more than nothing.
    piped: Option<(Pipe, usize)>,
    /// Spliced since the sender last ran dry.
    run: usize,
}

/// The two connections as one direction sees them.
pub(crate) struct Ends<'a> {
    pub(crate) from: &'a mut TcpStream,
    pub(crate) to: &'a mut TcpStream,
}

impl Half {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            stage: Stage::Open,
            pace: Pace::Unknown,
            holding: false,
            abrupt: false,
            stash: Vec::new(),
            sent: 0,
            piped: None,
            run: 0,
        }
    }

    /// Moves what can be moved. Ready: this direction is over, or the whole flow is.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut ends: Ends<'_>,
        inspection: &mut Inspection,
    ) -> Poll<Result<(), Fault>> {
        while !self.is_over() {
            if !self.holding && ready!(self.flush(context, ends.to, inspection)).is_err() {
                self.give_in();
            } else if self.stage == Stage::Ended {
                self.close(context, ends.to);
            } else if self.stage == Stage::Open {
                ready!(self.advance(context, &mut ends, inspection))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing more will go this way.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Broken)
    }

    /// The taker takes no more, and its end was not the reason.
    pub(crate) fn is_broken(&self) -> bool {
        self.stage == Stage::Broken
    }

    /// The sender said its end.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Done)
    }

    /// Bytes wait for a decision.
    pub(crate) fn is_holding(&self) -> bool {
        self.holding
    }

    /// Bytes wait for the taker.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.holding && (!self.stash.is_empty() || self.piped.is_some())
    }

    /// The decision is there.
    pub(crate) fn release(&mut self) {
        self.holding = false;
    }

    /// The end is not to be passed on: the taker will be reset.
    pub(crate) fn be_abrupt(&mut self) {
        self.abrupt = true;
    }

    fn give_in(&mut self) {
        self.stage = Stage::Broken;
        self.stash = Vec::new();
        self.piped = None;
    }

    fn close(&mut self, context: &mut Context<'_>, to: &mut TcpStream) {
        self.stage = Stage::Done;
        if self.abrupt {
            return;
        }
        // Fails only if the taker is gone, which its own direction finds out.
        if let Poll::Ready(Err(error)) = Pin::new(to).poll_shutdown(context) {
            tracing::trace!(%error, "end not passed on");
        }
    }

    /// Sends what is left over.
    fn flush(
        &mut self,
        context: &mut Context<'_>,
        to: &mut TcpStream,
        inspection: &Inspection,
    ) -> Poll<io::Result<()>> {
        if self.piped.is_some() {
            ready!(self.drain(context, to, inspection))?;
        }
        if self.stash.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.stash.len() {
            let left = &self.stash[self.sent..];
            let sent = ready!(Pin::new(&mut *to).poll_write(context, left))?;
            inspection.flow().count(self.side, sent as u64);
            self.sent += sent;
        }
        self.stash = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes the next bytes, in the way that suits them.
    fn advance(
        &mut self,
        context: &mut Context<'_>,
        ends: &mut Ends<'_>,
        inspection: &mut Inspection,
    ) -> Poll<Result<(), Fault>> {
        let room = self.room(inspection);
        if room == 0 {
            return Poll::Ready(self.follow(inspection.give_up()));
        }
        match self.splice_limit(inspection) {
            Some(limit) => self.splice(context, ends.from, inspection, limit),
            None => scratch::with(|scratch| {
                let mut buffer = ReadBuf::new(&mut scratch.bytes[..room]);
                let read = Pin::new(&mut *ends.from).poll_read(context, &mut buffer);
                if ready!(read).is_err() {
                    return Poll::Ready(Err(Fault::Reset(self.side)));
                }
                if buffer.filled().is_empty() {
                    return Poll::Ready(self.end(inspection, &mut scratch.events));
                }
                let step = inspection.feed(self.side, buffer.filled(), &mut scratch.events);
                self.take(context, ends.to, inspection, (step, buffer.filled()))
            }),
        }
    }

    /// Bytes that may be read: what is read while the client is held may have to be kept.
    fn room(&self, inspection: &Inspection) -> usize {
        if self.holding || (self.side == Side::Client && inspection.holds()) {
            CHUNK.min(inspection.hold_bytes().saturating_sub(self.stash.len()))
        } else {
            CHUNK
        }
    }

    /// Does with a chunk what was decided.
    fn take(
        &mut self,
        context: &mut Context<'_>,
        to: &mut TcpStream,
        inspection: &Inspection,
        (step, chunk): (Step, &[u8]),
    ) -> Poll<Result<(), Fault>> {
        if chunk.len() == CHUNK {
            self.pace = Pace::Bulk;
        }
        let was_holding = self.holding;
        self.follow(step)?;
        if self.holding || was_holding {
            self.stash.extend_from_slice(chunk);
            return Poll::Ready(Ok(()));
        }
        let sent = match Pin::new(to).poll_write(context, chunk) {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Pending => 0,
            Poll::Ready(Err(_)) => {
                self.give_in();
                return Poll::Ready(Ok(()));
            }
        };
        if sent > 0 {
            inspection.flow().count(self.side, sent as u64);
        }
        if sent < chunk.len() {
            self.stash.extend_from_slice(&chunk[sent..]);
        }
        Poll::Ready(Ok(()))
    }

    fn follow(&mut self, step: Step) -> Result<(), Fault> {
        match step {
            Step::Pass => self.holding = false,
            Step::Hold => self.holding = true,
            Step::Stop(outcome) => return Err(Fault::Stop(outcome)),
        }
        Ok(())
    }

    fn end(&mut self, inspection: &mut Inspection, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.stage = Stage::Ended;
        inspection.flow().half_close(self.side);
        self.follow(inspection.end(self.side, events))?;
        self.holding = false;
        Ok(())
    }
}
