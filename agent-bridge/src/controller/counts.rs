//! What the controller counts.

use outrider_telemetry::{
    Counter, CounterFamily, Durations, Gauge, GaugeFamily, MetricError, Registry,
};

/// Metric families of the role.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Events of watches, by kind.
    pub(super) events: CounterFamily,
    /// Failures of watches, by kind.
    pub(super) watch_failures: CounterFamily,
    /// Watches that fail now.
    pub(super) watches_failing: Gauge,
    /// Calls of the API server, by verb and kind; renewals of the Lease apart.
    pub(super) calls: CounterFamily,
    /// Calls that failed, by verb and kind.
    pub(super) calls_failed: CounterFamily,
    /// 1 while we lead.
    pub(super) leading: Gauge,
    /// What is held, by kind.
    pub(super) held: GaugeFamily,
    /// Revision in force.
    pub(super) revision: Gauge,
    /// From a change to a plan.
    pub(super) plan_seconds: Durations,
    /// Bridges that are linked.
    pub(super) links: Gauge,
    /// Links that ended, by reason.
    pub(super) links_ended: CounterFamily,
    /// Bridges that were refused, by reason.
    pub(super) refused: CounterFamily,
    /// Updates sent, whole ones and changes.
    pub(super) updates: CounterFamily,
    /// Their bytes.
    pub(super) update_bytes: CounterFamily,
    /// Conversations by what became of them.
    pub(super) observed: CounterFamily,
    /// Addresses asked for and forgotten because there were too many.
    pub(super) forgotten: Counter,
    /// Services that found no room among those that a node is told of.
    pub(super) services_left_out: Counter,
    /// Events on workloads, by what became of them.
    pub(super) told: CounterFamily,
    /// Objects whose status or rules wait to be written.
    pub(super) waiting: Gauge,
}

impl Counts {
    /// Registers the families.
    pub(super) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let name = |name: &str| format!("outrider_controller_{name}");
        let counters = |known: &str, help: &str, labels: &[&str]| {
            registry.counters(&name(known), help, labels)
        };
        let gauge = |known: &str, help: &str| registry.gauge(&name(known), help);
        let held = ["kind"];
        Ok(Self {
            events: counters("watch_events_total", "Events of watches.", &["kind"])?,
            watch_failures: counters("watch_failures_total", "Failures of watches.", &["kind"])?,
            watches_failing: gauge("watches_failing", "Watches that fail now.")?,
            calls: counters("api_calls_total", "Calls of the API server.", &["verb", "kind"])?,
            calls_failed: counters(
                "api_calls_failed_total",
                "Calls of the API server that failed.",
                &["verb", "kind"],
            )?,
            leading: gauge("leading", "1 while this replica leads.")?,
            held: registry.gauges(&name("held"), "What is held in memory.", &held)?,
            revision: gauge("revision", "Revision of what is in force.")?,
            plan_seconds: registry.durations(
                &name("plan_seconds"),
                "How long it took to make a plan.",
                &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0],
            )?,
            links: gauge("links", "Bridges that are linked.")?,
            links_ended: counters("links_ended_total", "Links that ended.", &["reason"])?,
            refused: counters("bridges_refused_total", "Bridges that were refused.", &["reason"])?,
            updates: counters("updates_total", "Updates sent to bridges.", &["kind"])?,
            update_bytes: counters("update_bytes_total", "Bytes of updates.", &["kind"])?,
            observed: counters(
                "conversations_total",
                "Conversations that bridges told of, by what became of them.",
                &["outcome"],
            )?,
            forgotten: registry.counter(
                &name("questions_forgotten_total"),
                "Addresses that bridges asked for and that made room for others.",
            )?,
            services_left_out: registry.counter(
                &name("services_left_out_total"),
                "Services that a node was not told of because there were too many.",
            )?,
            told: counters("events_told_total", "Events on workloads.", &["outcome"])?,
            waiting: gauge("writes_waiting", "Objects that wait to be written.")?,
        })
    }
}
