//! Both directions of one flow in one task.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use outrider_model::Side;
use outrider_telemetry::Outcome;
use tokio::net::TcpStream;

use crate::{
    RelaySettings,
    half::{Ends, Fault, Half},
    inspection::{Inspection, Step},
    leg::Leg,
    timers::{Due, Timers},
};

/// A dialled flow.
#[derive(Debug)]
pub(crate) struct Pump {
    downstream: Leg,
    upstream: Leg,
    inspection: Inspection,
    up: Half,
    down: Half,
    timers: Timers,
}

impl Pump {
    pub(crate) fn new(downstream: Leg, upstream: Leg, inspection: Inspection) -> Self {
        Self {
            downstream,
            upstream,
            inspection,
            up: Half::new(Side::Client),
            down: Half::new(Side::Server),
            timers: Timers::default(),
        }
    }

    /// Runs until the flow is over. What may end it from outside comes first, so that a cut is
    /// never taken for an end.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        settings: &RelaySettings,
    ) -> Poll<Outcome> {
        if let Some(outcome) = self.inspection.heed(context.waker()) {
            return Poll::Ready(outcome);
        }
        loop {
            if let Err(fault) = self.advance(context) {
                return Poll::Ready(fault.into());
            }
            if let Some(outcome) = self.over() {
                return Poll::Ready(outcome);
            }
            self.arm(settings);
            let due = ready!(self.timers.poll(context, self.moved()));
            if let Some(outcome) = self.meet(due) {
                return Poll::Ready(outcome);
            }
        }
    }

    /// Ends the record, then closes both connections as the outcome asks; except that of a client who
    /// is to be told something first.
    pub(crate) fn close(self, outcome: Outcome) -> Option<(Leg, Vec<u8>)> {
        let Self { downstream, upstream, inspection, .. } = self;
        let denied = matches!(outcome, Outcome::Denied | Outcome::Threat);
        let answer = denied.then(|| inspection.answer(outcome)).flatten();
        inspection.finish(outcome);
        if outcome == Outcome::Done {
            downstream.finish();
            upstream.finish();
            return None;
        }
        answer.map(|answer| (downstream, answer))
    }

    /// Moves what can be moved both ways.
    fn advance(&mut self, context: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            if !self.inspection.holds() {
                self.up.release();
            }
            let ends = Ends { from: &mut self.downstream, to: &mut self.upstream };
            if let Poll::Ready(result) = self.up.poll(context, ends, &mut self.inspection) {
                result?;
            }
            if self.up.is_broken() {
                self.down.be_abrupt();
            }
            let ends = Ends { from: &mut self.upstream, to: &mut self.downstream };
            if let Poll::Ready(result) = self.down.poll(context, ends, &mut self.inspection) {
                result?;
            }
            if self.down.is_broken() {
                self.up.be_abrupt();
            }
            // The server's bytes may have told what the client's wait for.
            if !self.up.is_holding() || self.inspection.holds() {
                return Ok(());
            }
        }
    }

    /// Does what is due; the outcome if the flow ends for it.
    fn meet(&mut self, due: Due) -> Option<Outcome> {
        match due {
            Due::Silence => Some(Outcome::TimedOut),
            Due::Hold => match self.inspection.give_up() {
                Step::Stop(outcome) => Some(outcome),
                Step::Pass | Step::Hold => None,
            },
            Due::Stall if self.up.is_stalled() && is_gone(&self.downstream) => {
                Some(Outcome::ResetByClient)
            }
            Due::Stall if self.down.is_stalled() && is_gone(&self.upstream) => {
                Some(Outcome::ResetByServer)
            }
            Due::Stall => None,
        }
    }

    /// A taker that takes no more may still have said something before: the flow ends when that is
    /// through.
    fn over(&self) -> Option<Outcome> {
        if !self.up.is_over() || !self.down.is_over() {
            return None;
        }
        Some(match (self.up.is_broken(), self.down.is_broken()) {
            (true, _) => Outcome::ResetByServer,
            (false, true) => Outcome::ResetByClient,
            (false, false) => Outcome::Done,
        })
    }

    fn moved(&self) -> u64 {
        self.inspection
            .flow()
            .bytes()
            .into_iter()
            .fold(0, u64::wrapping_add)
    }

    fn arm(&mut self, settings: &RelaySettings) {
        if self.up.is_holding() {
            self.timers.hold(settings.hold_time);
        } else {
            self.timers.release();
        }
        if self.up.is_stalled() || self.down.is_stalled() {
            self.timers.watch_stall();
        }
        if let Some(limit) = self.silence(settings) {
            self.timers.watch_silence(limit, self.moved());
        }
    }

    /// How long both sides may be silent.
    fn silence(&self, settings: &RelaySettings) -> Option<Duration> {
        let idle = settings.idle_timeout;
        if !self.up.has_ended() && !self.down.has_ended() {
            return idle;
        }
        let half = settings.half_close_timeout;
        Some(idle.map_or(half, |idle| idle.min(half)))
    }
}

/// Whether the peer reset the connection, although nobody reads it.
fn is_gone(stream: &TcpStream) -> bool {
    !matches!(stream.take_error(), Ok(None))
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Reset(Side::Client) => Self::ResetByClient,
            Fault::Reset(Side::Server) => Self::ResetByServer,
            Fault::Stop(outcome) => outcome,
        }
    }
}
