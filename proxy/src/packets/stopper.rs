//! What ends flows that the proxy does not hold: resets for TCP, errors for UDP.

use std::{net::SocketAddr, time::Duration};

use outrider_capture::CaptureError;
use outrider_model::{IpProto, Side};
use outrider_packet::{Peek, forge::Glimpse};
use tracing::{info, warn};

use super::reset::{ResetCounters, Resets};
use crate::identity::Identity;

/// Errors a second that the workload is told at most, as the kernel does it.
pub(crate) const MAX_ERRORS: u32 = 100;

/// Resets while they can be sent, and tried for again while they can't.
#[derive(Debug)]
pub(crate) struct Stopper {
    wanted: bool,
    mark: Option<u32>,
    resets: Option<Resets>,
    /// Of the sockets that are gone.
    before: ResetCounters,
    errors: Allowance,
    told: ErrorCounters,
    warned: bool,
}

/// What became of errors for the workload.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ErrorCounters {
    /// The workload was told.
    pub sent: u64,
    /// There were too many.
    pub limited: u64,
}

impl Stopper {
    /// Opens nothing yet; what is sent carries `mark`.
    pub(crate) fn new(wanted: bool, mark: Option<u32>) -> Self {
        Self {
            wanted,
            mark,
            resets: None,
            before: ResetCounters::default(),
            errors: Allowance::default(),
            told: ErrorCounters::default(),
            warned: false,
        }
    }

    /// Opens the sockets if they are wanted and not there. Must be called inside a tokio runtime.
    pub(crate) fn open(&mut self) {
        if !self.wanted || self.resets.is_some() {
            return;
        }
        match Resets::open(self.mark) {
            Ok(resets) => {
                info!("connections can be reset");
                self.resets = Some(resets);
                self.warned = false;
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Whether connections can be reset.
    pub(crate) fn is_there(&self) -> bool {
        self.resets.is_some()
    }

    /// Works on what is condemned; never ends while there is nothing.
    pub(crate) async fn work(&mut self) {
        let Some(resets) = &mut self.resets else { return std::future::pending().await };
        if let Err(error) = resets.work().await {
            self.failed(&error);
            self.before = self.resets();
            self.resets = None;
        }
    }

    /// Resets the TCP connection of an end in this pod with another one. `last` is what is known of it.
    pub(crate) fn condemn(&mut self, near: SocketAddr, far: SocketAddr, last: Option<&Glimpse>) {
        if let Some(resets) = &mut self.resets {
            resets.condemn(near, far, last);
        }
    }

    /// Tells the workload that a datagram of its own was dropped, so that it need not wait for an answer.
    /// Nobody else is told: whoever makes up a sender's address must not choose whom we send to.
    pub(crate) fn prohibit(
        &mut self,
        packet: &[u8],
        peek: &Peek<'_>,
        pod: &Identity,
        now: Duration,
    ) {
        let sender = match peek.side {
            Side::Client => peek.ends.client,
            Side::Server => peek.ends.server,
        };
        let Some(resets) = &mut self.resets else { return };
        if peek.ends.proto != IpProto::UDP || !pod.is_local(sender.ip()) {
            return;
        }
        if !self.errors.take(now) {
            self.told.limited = self.told.limited.saturating_add(1);
        } else if resets.prohibit(packet) {
            self.told.sent = self.told.sent.saturating_add(1);
        }
    }

    /// What became of resets, over all sockets.
    pub(crate) fn resets(&self) -> ResetCounters {
        let now = self.resets.as_ref().map(Resets::counters);
        self.before.plus(now.unwrap_or_default())
    }

    /// What became of errors.
    pub(crate) fn errors(&self) -> ErrorCounters {
        self.told
    }

    /// Said once; what goes on failing is tried again every second.
    fn failed(&mut self, error: &CaptureError) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(%error, reason = error.reason(), "connections cannot be reset");
        }
    }
}

/// So many a second.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    second: u64,
    taken: u32,
}

impl Allowance {
    fn take(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            *self = Self { second: now.as_secs(), taken: 0 };
        }
        let left = self.taken < MAX_ERRORS;
        self.taken += u32::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_limit_that_ends_with_the_second() {
        let mut allowance = Allowance::default();
        let count = |allowance: &mut Allowance, at| {
            (0..2 * MAX_ERRORS)
                .filter(|_| allowance.take(Duration::from_millis(at)))
                .count()
        };
        assert_eq!(count(&mut allowance, 10_000), MAX_ERRORS as usize);
        assert_eq!(count(&mut allowance, 10_999), 0);
        assert_eq!(count(&mut allowance, 11_000), MAX_ERRORS as usize);
    }
}
