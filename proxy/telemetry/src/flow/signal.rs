//! How others reach a flow's task: end it, or have it look at the policy again.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU8,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    task::Waker,
};

use parking_lot::Mutex;

use super::CutReason;

/// One slot, one waiter: the flow's task.
#[derive(Debug, Default)]
pub(super) struct Signal {
    reason: AtomicU8,
    nudged: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Signal {
    /// Ends the flow; the first reason stands.
    pub(super) fn cut(&self, reason: CutReason) {
        if self
            .reason
            .compare_exchange(0, reason as u8, AcqRel, Relaxed)
            .is_ok()
        {
            self.wake();
        }
    }

    pub(super) fn reason(&self) -> Option<CutReason> {
        CutReason::from_code(self.reason.load(Acquire))
    }

    pub(super) fn nudge(&self) {
        self.nudged.store(true, Release);
        self.wake();
    }

    pub(super) fn take_nudge(&self) -> bool {
        self.nudged.load(Relaxed) && self.nudged.swap(false, Acquire)
    }

    /// Whoever signals after this wakes `waker`; what was signalled before is there to be read.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut waiter = self.waiter.lock();
        if !waiter.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *waiter = Some(waker.clone());
        }
    }

    fn wake(&self) {
        let waiter = self.waiter.lock().clone();
        if let Some(waker) = waiter {
            waker.wake();
        }
    }
}
