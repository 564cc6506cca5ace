//! How fast a capture takes packets: the pod's traffic goes first.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that a capture may take now. What it takes beyond is owed, and repaid before it takes more;
/// meanwhile the ring is full, and the kernel counts packets in place of copying them.
#[derive(Debug)]
pub(super) struct Budget {
    left: i64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    /// When something may be taken: `None` is now.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.at);
        let earned = passed.as_micros().saturating_mul(RATE) / 1_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.at = now;
        }
        (self.left <= 0).then(|| {
            let owed = u128::from(self.left.unsigned_abs()) + SIP;
            let micros = owed * 1_000_000 / RATE;
            now + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
        })
    }

    /// So many bytes were taken, in so many packets.
    pub(super) fn take(&mut self, bytes: u64, packets: u64) {
        let cost = bytes.saturating_add(packets.saturating_mul(A_PACKET));
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(cost);
    }
}

/// Bytes a second: 256 Mbit/s of whole packets.
const RATE: u128 = 32 << 20;
/// Bytes that may come at once after a while of less.
const BURST: i64 = 8 << 20;
/// Bytes that are worth waking up for.
const SIP: u128 = 64 << 10;
/// What a packet costs beside its bytes.
const A_PACKET: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_so_much_a_second() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        let (mut now, mut taken) = (begin, 0_u64);
        while now < begin + 10 * SECOND {
            match budget.wait(now) {
                None => {
                    budget.take(100 << 10, 70);
                    taken += 100 << 10;
                }
                Some(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        let least = 10 * u64::try_from(RATE).unwrap();
        let most = least + u64::try_from(BURST).unwrap() + (1 << 20);
        assert!((least * 9 / 10..most).contains(&taken), "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_not_saved_up_and_small_steps_add_up() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        assert_eq!(budget.wait(begin + 3600 * SECOND), None);
        budget.take(u64::try_from(BURST).unwrap(), 0);
        let now = begin + 3600 * SECOND;
        assert!(budget.wait(now).is_some());
        // A microsecond earns 33 bytes, and none of them is lost.
        let at = |micros| now + Duration::from_micros(micros);
        for micros in 1..=3 {
            budget.wait(at(micros));
        }
        assert_eq!(budget.left, 99);
        budget.take(u64::MAX, u64::MAX);
        assert!(budget.wait(at(4)).is_some());
    }
}
