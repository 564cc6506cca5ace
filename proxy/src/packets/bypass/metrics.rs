//! What is counted of ways past the proxy.

use outrider_telemetry::{Counter, CounterFamily, MetricError, Registry};

use super::trick::Trick;

/// Counters of findings, and of what could not be looked at.
#[derive(Debug)]
pub(crate) struct BypassMetrics {
    found: CounterFamily,
    /// Connections that nobody could tell to be the proxy's or not.
    pub(super) undecided: Counter,
    /// Sockets and connections that were too many to look at.
    pub(in crate::packets) unread: Counter,
}

impl BypassMetrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let found = registry.counters(
            "outrider_bypass_findings_total",
            "Ways past the proxy that were found in use, by kind",
            &["trick"],
        )?;
        for trick in Trick::ALL {
            found.with(&[trick.label()]).inc_by(0);
        }
        Ok(Self {
            found,
            undecided: registry.counter(
                "outrider_bypass_undecided_total",
                "Connections that could not be told from the proxy's own, under load",
            )?,
            unread: registry.counter(
                "outrider_bypass_unread_total",
                "Sockets and connections that were too many to look at",
            )?,
        })
    }

    /// One more.
    pub(super) fn found(&self, trick: Trick) {
        self.found.with(&[trick.label()]).inc();
    }
}
