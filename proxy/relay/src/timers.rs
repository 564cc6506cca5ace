//! The times of one flow, behind one timer that exists only while something is due.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// What became due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Due {
    /// The client's bytes were held for as long as they may be.
    Hold,
    /// Nothing moved for as long as that is allowed.
    Silence,
    /// Time to see whether the sender of bytes that nobody takes is still there.
    Stall,
}

/// A silence is found by looking so many times in its length, so that a byte costs no clock.
const LOOKS: u32 = 8;

#[derive(Debug)]
struct Silence {
    limit: Duration,
    next: Instant,
    looks: u32,
    moved: u64,
}

/// A sender is not read while its bytes wait, so its reset is only found by looking, so often.
const STALL: Duration = Duration::from_secs(1);

/// Hold, silence and stall.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    sleep: Option<Pin<Box<Sleep>>>,
    hold: Option<Instant>,
    silence: Option<Silence>,
    stall: Option<Instant>,
}

impl Timers {
    /// Starts the hold's time, unless it runs.
    pub(crate) fn hold(&mut self, limit: Duration) {
        if self.hold.is_none() {
            self.hold = Some(Instant::now() + limit);
            self.arm();
        }
    }

    /// The hold is over.
    pub(crate) fn release(&mut self) {
        if self.hold.take().is_some() {
            self.arm();
        }
    }

    /// Bytes wait for their taker: look after their sender in a while. Not taken back when they went
    /// on, since that happens all the time.
    pub(crate) fn watch_stall(&mut self) {
        if self.stall.is_none() {
            self.stall = Some(Instant::now() + STALL);
            self.arm();
        }
    }

    /// From now on a silence of `limit` is due; found at most an eighth of it late.
    pub(crate) fn watch_silence(&mut self, limit: Duration, moved: u64) {
        if self
            .silence
            .as_ref()
            .is_some_and(|silence| silence.limit == limit)
        {
            return;
        }
        self.silence =
            Some(Silence { limit, next: Instant::now() + limit / LOOKS, looks: 0, moved });
        self.arm();
    }

    /// What is due, if anything is; `moved` is the number of bytes moved since the flow began.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, moved: u64) -> Poll<Due> {
        loop {
            let Some(sleep) = &mut self.sleep else { return Poll::Pending };
            std::task::ready!(sleep.as_mut().poll(context));
            if let Some(due) = self.look(Instant::now(), moved) {
                return Poll::Ready(due);
            }
        }
    }

    fn look(&mut self, now: Instant, moved: u64) -> Option<Due> {
        let mut due = None;
        if self.hold.is_some_and(|at| at <= now) {
            self.hold = None;
            due = Some(Due::Hold);
        } else if self.stall.is_some_and(|at| at <= now) {
            self.stall = None;
            due = Some(Due::Stall);
        } else if let Some(silence) = self.silence.as_mut().filter(|silence| silence.next <= now) {
            silence.looks = if silence.moved == moved { silence.looks + 1 } else { 0 };
            silence.moved = moved;
            silence.next = now + silence.limit / LOOKS;
            due = (silence.looks >= LOOKS).then_some(Due::Silence);
        }
        self.arm();
        due
    }

    fn arm(&mut self) {
        let silence = self.silence.as_ref().map(|silence| silence.next);
        let next = [self.hold, self.stall, silence];
        let Some(next) = next.into_iter().flatten().min() else {
            self.sleep = None;
            return;
        };
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(next),
            None => self.sleep = Some(Box::pin(sleep_until(next))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_hold_ends_in_time_and_once() {
        let mut timers = Timers::default();
        let start = Instant::now();
        timers.hold(Duration::from_secs(5));
        timers.hold(Duration::from_secs(50));
        assert_eq!(poll_fn(|cx| timers.poll(cx, 0)).await, Due::Hold);
        assert_eq!(start.elapsed().as_secs(), 5);
        assert!(timers.sleep.is_none(), "nothing is due, so there is no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_hold_is_never_due() {
        let mut timers = Timers::default();
        timers.hold(Duration::from_secs(5));
        timers.watch_silence(MINUTE, 0);
        timers.release();
        assert_eq!(poll_fn(|cx| timers.poll(cx, 0)).await, Due::Silence);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_byte() {
        let mut timers = Timers::default();
        let start = Instant::now();
        timers.watch_silence(MINUTE, 0);
        let mut looks = 0;
        // Bytes move until the fourth look.
        let due = poll_fn(|cx| {
            looks += 1;
            timers.poll(cx, looks.min(4))
        });
        assert_eq!(due.await, Due::Silence);
        let silent = start.elapsed();
        assert!(silent > MINUTE && silent < 2 * MINUTE, "{silent:?}");
    }
}
