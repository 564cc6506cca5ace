//! How much one mailbox may have read for it: nobody else pays for a pod that floods.
//!
//! A bucket of tokens (Turner, "New directions in communications", 1986): a datagram costs its bytes and
//! something for itself, whether it is of use or not.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second that are read in the long run. A proxy's largest batch is 4 MiB, and one of 1000 rows every 2 s is 50 kB a second.
pub const RATE: usize = 1 << 20;
/// Bytes that are read at once; twice a proxy's largest batch.
pub const BURST: usize = 10 << 20;
/// What a datagram costs besides its bytes: reading one takes about as long as a kibibyte of rows.
pub const EACH: usize = 1 << 10;
/// Least pause: waking up has a price too.
const PAUSE: Duration = Duration::from_millis(50);

/// What may be read now.
#[derive(Debug)]
pub struct Budget {
    left: usize,
    /// As of when.
    at: Instant,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// Takes what a datagram costs; says how long to wait if that was more than there is.
    pub fn spend(&mut self, length: usize, now: Instant) -> Option<Duration> {
        let cost = length.saturating_add(EACH);
        if self.left >= cost {
            self.left -= cost;
            return None;
        }
        // Looked at the clock only now: who stays within the burst never comes here.
        let passed = usize::try_from((now - self.at).as_millis()).unwrap_or(usize::MAX);
        let earned = passed.saturating_mul(RATE / 1000);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.at = now;
        let pause = (self.left < cost).then_some(PAUSE);
        self.left = self.left.saturating_sub(cost);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are read of a sender that always has more, and pauses, in so many seconds.
    fn flood(length: usize, seconds: u64) -> (usize, usize) {
        let begin = Instant::now();
        let (mut budget, mut now, mut read, mut pauses) = (Budget::new(begin), begin, 0, 0);
        while now < begin + Duration::from_secs(seconds) {
            read += length + EACH;
            now += Duration::from_micros(2);
            if let Some(pause) = budget.spend(length, now) {
                now += pause;
                pauses += 1;
            }
        }
        (read, pauses)
    }

    #[test]
    fn a_flood_is_read_at_its_rate_whatever_it_is_made_of() {
        for length in [0, 100, 8192] {
            let (read, pauses) = flood(length, 60);
            let most = BURST + 60 * RATE + 60 * 20 * (8192 + EACH);
            assert!(read <= most && read > 40 * RATE, "{length}: {read}");
            assert!(pauses > 500, "{length}: {pauses}");
        }
    }

    #[test]
    fn the_largest_batch_is_read_without_a_pause_again_and_again() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        for batch in 0..10 {
            let now = begin + batch * Duration::from_secs(8);
            // 16 384 rows, 1024 threats, 1024 sample flows.
            let datagrams = [(193, 8192), (1024, 2400), (22, 8192)];
            for (count, length) in datagrams {
                for _ in 0..count {
                    assert_eq!(budget.spend(length, now), None, "{batch}");
                }
            }
        }
    }
}
