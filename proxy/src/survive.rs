//! What a thread of the proxy does for as long as it lives comes up again when it ends before its time: nobody else would
//! answer the bridge, the pod's questions for names, or the kubelet. What it held back or let pass meanwhile is for the
//! policy in force and the pod's rules to say, as when the whole proxy is away.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use outrider_telemetry::CounterFamily;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// A thread's work, which is done again and again until `stop`.
#[derive(Debug)]
pub(crate) struct Lives<'a> {
    name: &'static str,
    restarts: &'a CounterFamily,
    stop: &'a CancellationToken,
}

impl<'a> Lives<'a> {
    /// Counts in `restarts` under `name`.
    pub(crate) fn new(
        name: &'static str,
        restarts: &'a CounterFamily,
        stop: &'a CancellationToken,
    ) -> Self {
        Self { name, restarts, stop }
    }

    /// Does the work once, as far as it gets: a panic is an end like any other. An end that comes before `stop` is
    /// counted, and after a while the work is to be done again: `true`.
    pub(crate) async fn once(&self, work: impl Future<Output = ()>) -> bool {
        let panicked = !guarded(work).await;
        if self.stop.is_cancelled() {
            return false;
        }
        self.restarts.with(&[self.name]).inc();
        error!(thread = self.name, panicked, "a side thread broke off, it begins again");
        self.stop.run_until_cancelled(sleep(PAUSE)).await.is_some()
    }
}

/// Whether the work came to its end, rather than panicked.
async fn guarded(work: impl Future<Output = ()>) -> bool {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or(Poll::Ready(false), |poll| poll.map(|()| true))
    })
    .await
}

/// Time before the next try: what panics each time must not fill the log.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use outrider_telemetry::Registry;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_or_ends_begins_again_until_it_is_told_to_stop() {
        let registry = Registry::default();
        let restarts = registry.counters("restarts", "Help.", &["thread"]).unwrap();
        let stop = CancellationToken::new();
        let lives = Lives::new("dns", &restarts, &stop);
        assert!(lives.once(async { panic!("a bug") }).await);
        assert!(lives.once(async {}).await);
        assert!(!lives.once(async { stop.cancel() }).await);
        assert_eq!(restarts.with(&["dns"]).get(), 2);
    }
}
