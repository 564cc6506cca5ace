//! How it ends: when everything else in the pod has, and what is said last.

use std::{path::Path, sync::Arc, time::Duration};

use outrider_wire::ext::Instance;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Server;

impl Server {
    /// Nothing but us is left in the pod, if it is our bridge that says so, and of this life.
    pub(super) fn stop(&self, instance: Instance, from: Option<&Arc<Path>>) {
        let is_bridge = from.is_some() && from == self.bridge.as_ref();
        if is_bridge && instance == self.context.instance {
            self.context.alone.cancel();
        } else {
            self.context.ctrl.invalid("foreign-stop");
        }
    }

    /// Sends what is left and takes the acknowledgements for it, for a while at most.
    pub(super) async fn last_words(&mut self, ticker: &mut Interval, buffer: &mut [u8]) {
        self.context.telemetry.settle();
        self.notifier.end_hold();
        let never = CancellationToken::new();
        let alone = self.context.alone.is_cancelled();
        let deadline = Instant::now()
            .checked_add(if alone { LAST_WORDS_ALONE } else { LAST_WORDS })
            .unwrap_or_else(Instant::now);
        while self.state.reports() && Instant::now() < deadline {
            self.notifier.report_now(&self.state, Instant::now());
            let connected = self.notifier.is_connected();
            let done = if connected { self.notifier.is_settled() } else { !alone };
            if done {
                break;
            }
            let next = self.next(&never, ticker, buffer);
            if let Ok(event) = tokio::time::timeout_at(deadline, next).await {
                self.handle(event, buffer);
            }
        }
        let rows = self.context.telemetry.rows().lock().len();
        info!(rows, sent = self.notifier.is_settled(), "last reports");
    }
}

/// Longest time for the last reports.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// The same when nothing but us is left in the pod: nobody is kept waiting, so a bridge that is restarted just then
/// is waited for.
pub(super) const LAST_WORDS_ALONE: Duration = Duration::from_secs(15);
