//! How long to wait before the next attempt at what has failed.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use futures_util::TryStream;
use kube::runtime::utils::{Backoff, StreamBackoff};
use tokio::time::Instant;

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause before something outside the cluster is tried again.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);
/// Longest pause before the API server is asked again: about what a change waits for that is made when it is back.
const LONGEST_WATCH: Duration = Duration::from_secs(5);
/// Without a failure for so long, pauses begin anew.
const QUIET: Duration = Duration::from_secs(60);

/// How long to wait after so many failures: doubled each time up to `longest`, and somewhere between half of that
/// and all of it, so that many nodes do not come back at once.
pub(crate) fn pause(failures: u32, longest: Duration, random: u64) -> Duration {
    let doubled = 1u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let full = FIRST.saturating_mul(doubled).min(longest);
    let thousandths = u32::try_from(random % 501).unwrap_or_default();
    full / 2 + full * thousandths / 1000
}

/// A number that no other process draws: the keys of a hash come from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// A watch that goes on after failures, with [`Pauses`].
pub(crate) fn patient<S: TryStream>(watch: S) -> StreamBackoff<S, Pauses> {
    StreamBackoff::new(watch, Pauses::default())
}

/// Pauses of whoever follows the API server.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last > QUIET) {
            self.failures = 0;
        }
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
        Some(pause(self.failures, LONGEST_WATCH, random()))
    }
}

impl Backoff for Pauses {
    /// Nothing: a list says that it begins before it has asked, which would begin anew after each failure of it.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use tokio::time::advance;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        assert_eq!(pause(1, LONGEST, 0), FIRST / 2);
        assert_eq!(pause(1, LONGEST, 500), FIRST);
        assert_eq!(pause(3, LONGEST, 500), FIRST * 4);
        for failures in [8, 31, 32, 33, u32::MAX] {
            assert_eq!(pause(failures, LONGEST, 0), LONGEST / 2);
            assert_eq!(pause(failures, LONGEST, 500), LONGEST);
        }
        assert_ne!(random(), random());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_waits_five_seconds_at_most_and_begins_anew_after_a_quiet_minute() {
        let mut pauses = Pauses::default();
        let mut next = || pauses.next().unwrap();
        assert!(next() <= FIRST);
        for _ in 0..100 {
            assert!(next() <= LONGEST_WATCH);
        }
        assert!(next() >= LONGEST_WATCH / 2, "slower while it goes on");
        advance(QUIET + FIRST).await;
        assert!(next() <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_begins_and_fails_again_and_again_is_asked_for_less_and_less() {
        let answers = stream::iter([Ok("begins"), Err("no answer")]).cycle();
        let mut watch = std::pin::pin!(patient(answers));
        let begun = Instant::now();
        let mut failed = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            failed += u32::from(watch.next().await.unwrap().is_err());
        }
        assert!((12..=32).contains(&failed), "{failed} times in a minute");
    }
}
