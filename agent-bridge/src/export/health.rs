//! Whether each sink works, for people.

use std::sync::Arc;

use outrider_telemetry::unix_seconds;
use parking_lot::Mutex;

use super::sink::Name;

/// Longest text of an error that is kept.
const MAX_ERROR: usize = 256;

/// How one sink is.
#[derive(Clone, Debug, Default)]
pub(super) struct SinkHealth {
    /// Deliveries that failed since the last one that did not.
    pub(super) failures: u32,
    /// What went wrong last.
    pub(super) last_error: Option<String>,
    /// When that was, Unix seconds; 0 for never.
    pub(super) last_error_at: u64,
    /// When it took something last, Unix seconds; 0 for never.
    pub(super) last_sent_at: u64,
}

/// How every sink is.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Mutex<[SinkHealth; Name::ALL.len()]>>);

impl Health {
    /// How one is now.
    pub(super) fn of(&self, sink: Name) -> SinkHealth {
        self.0
            .lock()
            .get(sink as usize)
            .cloned()
            .unwrap_or_default()
    }

    /// It took a batch.
    pub(super) fn works(&self, sink: Name) {
        self.change(sink, |health| {
            (health.failures, health.last_sent_at) = (0, unix_seconds());
        });
    }

    /// It did not.
    pub(super) fn fails(&self, sink: Name, error: &dyn std::fmt::Display) {
        let error: String = error.to_string().chars().take(MAX_ERROR).collect();
        self.change(sink, |health| {
            health.failures = health.failures.saturating_add(1);
            (health.last_error, health.last_error_at) = (Some(error), unix_seconds());
        });
    }

    fn change(&self, sink: Name, change: impl FnOnce(&mut SinkHealth)) {
        if let Some(health) = self.0.lock().get_mut(sink as usize) {
            change(health);
        }
    }
}
