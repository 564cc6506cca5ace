//! What the proxy says about itself, to the bridge and on the admin surface.

use outrider_telemetry::{FlowState, Telemetry, unix_seconds};
use outrider_wire::{
    ext::{FlowTotals, Status},
    limits::MAX_STATUS_LIST,
};
use serde::Serialize;

use crate::{
    context::Context, ctrl::SensorTotals, dns::Names, packets, rights::Rights, settings::QueueRule,
};

/// Reads the status; settle telemetry first.
#[must_use]
pub(crate) fn status(context: &Context) -> Status {
    let totals = context.telemetry.totals();
    let view = context.policy.load();
    let identity = context.identity.load();
    let mut dropped = context.ctrl.dropped(&totals);
    dropped.extend(context.packets.dropped());
    Status {
        instance: context.instance,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: view.mode.name().to_owned(),
        policy_version: view.version,
        policy: context.ctrl.policy_kind().to_owned(),
        refused: context.ctrl.policy_refusal(),
        managed: view.managed,
        macs: identity
            .macs()
            .iter()
            .copied()
            .take(MAX_STATUS_LIST)
            .collect(),
        addresses: identity.addresses().take(MAX_STATUS_LIST).collect(),
        capabilities: context
            .rights
            .capabilities
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        tier: context.packets.tier().label().to_owned(),
        stops: true,
        flows: FlowTotals {
            opened: totals.opened,
            closed: totals.closed,
            open: totals.open,
            bytes_client: totals.bytes_client,
            bytes_server: totals.bytes_server,
        },
        dropped: dropped
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect(),
    }
}

/// The status with what only people read.
#[derive(Debug, Serialize)]
pub(crate) struct Detailed {
    #[serde(flatten)]
    status: Status,
    uptime_seconds: u64,
    ready: bool,
    waits_for: Vec<&'static str>,
    quarantined: bool,
    rules: Rules,
    rights: Rights,
    /// What init's queue rules do when nobody answers, if there are any.
    queue_rule: Option<&'static str>,
    packets: packets::Shown,
    /// What the agent configured of DLP and WAF.
    sensors: SensorTotals,
}

/// Rules of the snapshot in force.
#[derive(Debug, Serialize)]
struct Rules {
    exact: u32,
    range: u32,
}

/// Reads the detailed status; settle telemetry first.
#[must_use]
pub(crate) fn detailed(context: &Context) -> Detailed {
    let waits_for = context.readiness.waits_for();
    let view = context.policy.load();
    let (exact, range) = view.snapshot.rule_counts();
    Detailed {
        status: status(context),
        uptime_seconds: context.started.elapsed().as_secs(),
        ready: waits_for.is_empty(),
        waits_for,
        quarantined: view.quarantined,
        rules: Rules { exact, range },
        rights: context.rights.clone(),
        queue_rule: context.settings.packets.queue_rule.map(QueueRule::label),
        packets: context.packets.shown(),
        sensors: context.ctrl.sensor_totals(),
    }
}

/// One live flow as people read it.
#[derive(Debug, Serialize)]
pub(crate) struct FlowLine {
    id: u64,
    direction: &'static str,
    client: String,
    server: String,
    app: String,
    /// The name that the server's address was last resolved from.
    name: Option<String>,
    host: Option<Box<str>>,
    sni: Option<Box<str>>,
    action: &'static str,
    verdict: &'static str,
    rule: u32,
    bytes_client: u64,
    bytes_server: u64,
    age_seconds: u64,
}

/// Up to `limit` live flows, in no order.
#[must_use]
pub(crate) fn flows(telemetry: &Telemetry, dns: &Names, limit: usize) -> Vec<FlowLine> {
    let now = unix_seconds();
    let mut lines = Vec::new();
    telemetry.flows().for_each(|flow| {
        if lines.len() < limit {
            lines.push(line(flow, dns, now));
        }
    });
    lines
}

fn line(flow: &FlowState, dns: &Names, now: u64) -> FlowLine {
    let (key, names, decision) = (flow.key(), flow.names(), flow.decision());
    let [bytes_client, bytes_server] = flow.bytes();
    FlowLine {
        id: flow.id().0,
        direction: key.direction.label(),
        client: key.client.to_string(),
        server: key.server.to_string(),
        app: flow.identification().app().to_string(),
        name: dns.label(key.server.ip()),
        host: names.host,
        sni: names.sni,
        action: decision.action.label(),
        verdict: flow.verdict().label(),
        rule: decision.rule.0,
        bytes_client,
        bytes_server,
        age_seconds: now.saturating_sub(flow.opened_at()),
    }
}
