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
    /// Since when nothing is heard of their changes, seconds since the epoch; 0 while it is.
    pub(super) namespaces_old_since: Gauge,
    /// Questions about namespaces that are not known.
    pub(super) unknown_namespaces: Counter,
    /// Authorities in `caBundle`.
    pub(super) authorities: Gauge,
    bundle_writes: CounterFamily,
    events: CounterFamily,
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

/// What became of a write of `caBundle`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// It is there.
    Done,
    /// Somebody else wrote in between.
    Conflict,
    /// The API server did not take it.
    Failed,
}

/// What became of an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// The API server has it.
    Sent,
    /// The same was said a short while ago.
    Repeated,
    /// More than are told.
    TooMany,
    /// The API server did not take it.
    Failed,
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
            namespaces_old_since: registry.gauge(
                "outrider_webhook_namespaces_old_since_seconds",
                "Since when the API server tells nothing of namespaces, since the epoch; 0 while it does.",
            )?,
            authorities: registry.gauge(
                "outrider_webhook_authorities",
                "Authorities in the caBundle of the webhook configurations.",
            )?,
            bundle_writes: registry.counters(
                "outrider_webhook_bundle_writes_total",
                "Writes of caBundle into the webhook configurations.",
                &["outcome"],
            )?,
            events: registry.counters(
                "outrider_webhook_events_total",
                "Events about refused pods.",
                &["outcome"],
            )?,
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

    /// A write of `caBundle`.
    pub(super) fn wrote(&self, outcome: Written) {
        let label = match outcome {
            Written::Done => "written",
            Written::Conflict => "conflict",
            Written::Failed => "failed",
        };
        self.bundle_writes.with(&[label]).inc();
    }

    /// What became of an event about a refused pod.
    pub(super) fn told(&self, outcome: Told) {
        let label = match outcome {
            Told::Sent => "sent",
            Told::Repeated => "repeated",
            Told::TooMany => "too-many",
            Told::Failed => "failed",
        };
        self.events.with(&[label]).inc();
    }

    pub(super) fn loaded(&self, good: bool) {
        self.reloads
            .with(&[if good { "good" } else { "unusable" }])
            .inc();
    }
}
