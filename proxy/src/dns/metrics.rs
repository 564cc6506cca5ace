//! Counters of the DNS listener and of the names it learns.

use outrider_telemetry::{Counter, CounterFamily, Gauge, MetricError, Registry};

/// What a question came by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
    /// Overheard on the wire.
    Wire,
}

impl Transport {
    fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Wire => "wire",
        }
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// A server answered, be it that the name does not exist.
    Answered,
    /// Every server asked failed; the first one's failure was passed on.
    Failed,
    /// No server is there; said so at once.
    Unreachable,
    /// No server answered while it mattered.
    Unanswered,
    /// More questions than may be under way.
    Overflow,
    /// It is no question.
    Malformed,
    /// The answer could not be handed over.
    Undelivered,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Unanswered => "unanswered",
            Self::Overflow => "overflow",
            Self::Malformed => "malformed",
            Self::Undelivered => "undelivered",
        }
    }
}

/// Handles of the families.
#[derive(Clone, Debug)]
pub(crate) struct DnsMetrics {
    queries: CounterFamily,
    strays: Counter,
    failovers: CounterFamily,
    connections_refused: Counter,
    pairs: Gauge,
    learned: Counter,
    dropped: Counter,
    unused: Counter,
}

impl DnsMetrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When a family of the same name is registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            queries: registry.counters(
                "outrider_dns_queries_total",
                "Questions to name servers, by what became of them",
                &["transport", "outcome"],
            )?,
            strays: registry.counter(
                "outrider_dns_stray_answers_total",
                "Messages of name servers that answer no question that was asked of them",
            )?,
            failovers: registry.counters(
                "outrider_dns_failovers_total",
                "Questions that another name server was asked because one did not answer",
                &["transport"],
            )?,
            connections_refused: registry.counter(
                "outrider_dns_connections_refused_total",
                "Connections to the DNS listener beyond its limit",
            )?,
            pairs: registry.gauge(
                "outrider_dns_addresses",
                "Addresses of names that the pod was told and may still use",
            )?,
            learned: registry.counter(
                "outrider_dns_addresses_learned_total",
                "Addresses of names that were new in an answer",
            )?,
            dropped: registry.counter(
                "outrider_dns_addresses_dropped_total",
                "Addresses of names forgotten before their time because there were too many",
            )?,
            unused: registry.counter(
                "outrider_dns_policy_addresses_dropped_total",
                "Addresses of names in rules that policy has no room for",
            )?,
        })
    }

    pub(crate) fn query(&self, transport: Transport, outcome: Outcome) {
        self.queries
            .with(&[transport.label(), outcome.label()])
            .inc();
    }

    pub(crate) fn stray(&self) {
        self.strays.inc();
    }

    pub(crate) fn failover(&self, transport: Transport) {
        self.failovers.with(&[transport.label()]).inc();
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    pub(crate) fn pairs(&self, now: usize) {
        self.pairs.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    pub(crate) fn learned(&self, fresh: usize, dropped: usize) {
        self.learned.inc_by(fresh as u64);
        self.dropped.inc_by(dropped as u64);
    }

    #[cfg(test)]
    pub(crate) fn count(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.queries
            .with(&[transport.label(), outcome.label()])
            .get()
    }

    #[cfg(test)]
    pub(crate) fn strays(&self) -> u64 {
        self.strays.get()
    }

    #[cfg(test)]
    pub(crate) fn unused(&self) -> u64 {
        self.unused.get()
    }

    pub(crate) fn no_room(&self, addresses: usize) {
        self.unused.inc_by(addresses as u64);
    }
}
