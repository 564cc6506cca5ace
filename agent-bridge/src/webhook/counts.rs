//! What the webhook counts.

use std::time::Duration;

use outrider_telemetry::{Counter, CounterFamily, Durations, Gauge, MetricError, Registry};

use super::review::Outcome;

/// Metric families of the role.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    decisions: CounterFamily,
    failures: CounterFamily,
    seconds: Durations,
    /// Connections that are open.
    pub(super) connections: Gauge,
    refused: CounterFamily,
    reloads: CounterFamily,
    /// When the certificate ends, seconds since the epoch.
    pub(super) expiry: Gauge,
    /// Namespaces that are known.
    pub(super) namespaces: Gauge,
    /// Questions about namespaces that are not known.
    pub(super) unknown_namespaces: Counter,
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// It could not be read.
    Malformed,
    /// It was too large.
    TooLarge,
    /// It did not come in time, or there was no room for it.
    TimedOut,
    /// There is nothing at that path.
    NotFound,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// The handshake failed.
    Handshake,
    /// It took too long.
    TimedOut,
    /// The peer has as many as it may.
    TooMany,
}

impl Counts {
    /// Registers the families.
    pub(super) fn register(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            decisions: registry.counters(
                "outrider_webhook_decisions_total",
                "Pods, by what became of them.",
                &["decision", "reason"],
            )?,
            failures: registry.counters(
                "outrider_webhook_failures_total",
                "Questions that were not answered.",
                &["reason"],
            )?,
            seconds: registry.durations(
                "outrider_webhook_seconds",
                "From a question's headers to its answer.",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0],
            )?,
            connections: registry
                .gauge("outrider_webhook_connections", "Connections that are open.")?,
            refused: registry.counters(
                "outrider_webhook_connections_refused_total",
                "Connections that came to nothing.",
                &["reason"],
            )?,
            reloads: registry.counters(
                "outrider_webhook_certificate_loads_total",
                "Certificates that were read or made.",
                &["outcome"],
            )?,
            expiry: registry.gauge(
                "outrider_webhook_certificate_expiry_seconds",
                "When the certificate in use ends, since the epoch.",
            )?,
            namespaces: registry
                .gauge("outrider_webhook_namespaces", "Namespaces that are known.")?,
            unknown_namespaces: registry.counter(
                "outrider_webhook_unknown_namespaces_total",
                "Questions about namespaces that are not known.",
            )?,
        })
    }

    pub(super) fn decided(&self, outcome: Outcome, took: Duration) {
        self.decisions.with(&outcome.labels()).inc();
        self.seconds.observe(took);
    }

    pub(super) fn failed(&self, why: Failure) {
        let label = match why {
            Failure::Malformed => "malformed",
            Failure::TooLarge => "too-large",
            Failure::TimedOut => "timed-out",
            Failure::NotFound => "not-found",
        };
        self.failures.with(&[label]).inc();
    }

    pub(super) fn refused(&self, why: Refused) {
        let label = match why {
            Refused::Handshake => "handshake",
            Refused::TimedOut => "timed-out",
            Refused::TooMany => "too-many",
        };
        self.refused.with(&[label]).inc();
    }

    pub(super) fn loaded(&self, good: bool) {
        self.reloads
            .with(&[if good { "good" } else { "unusable" }])
            .inc();
    }
}
