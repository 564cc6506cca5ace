//! Whether anything was heard from or sent to a proxy since the last look.

use std::sync::atomic::{AtomicBool, Ordering};

/// The keep-alive's activity mark: while a link is busy, nobody asks whether it lives.
#[derive(Debug, Default)]
pub struct Activity(AtomicBool);

impl Activity {
    /// Something was sent or received.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether there was anything since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}
