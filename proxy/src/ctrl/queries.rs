//! Requests that need telemetry: questions, and orders to live flows.

use outrider_model::FlowId;
use outrider_telemetry::{AppPort, CutReason, StatsSnapshot, Telemetry};
use outrider_wire::{
    DeviceCounter, DeviceStats, MacStats, MeterList, Reply, SessionList, Stats,
    request::ListeningPort,
};

use super::{
    answer::{self, MAX_LISTED, Scope},
    metrics::Loss,
    state::{Query, State},
};
use crate::context::Context;

/// The replies to a question; a list always ends with an empty one.
#[must_use]
pub(crate) fn answer(query: Query, context: &Context, state: &State) -> Vec<Reply> {
    let telemetry = &context.telemetry;
    match query {
        Query::Sessions => sessions(context, state),
        Query::Meters => {
            let meters = context.metering.list(state.epmac());
            MeterList::split(&meters).map(Reply::from).collect()
        }
        Query::SessionCount => vec![answer::session_count(telemetry).into()],
        Query::DeviceCounter => {
            telemetry.settle();
            let rules = context.policy.load().snapshot.rule_counts();
            let packets = context.packets.totals();
            let counter = answer::device_counter(telemetry, &packets, state.network(), rules);
            let (cur_meters, drop_meters) = context.metering.totals();
            vec![DeviceCounter { cur_meters, drop_meters, ..counter }.into()]
        }
        Query::DeviceStats => vec![DeviceStats(answer::stats(&settled(telemetry))).into()],
        Query::MacStats { ours: true, .. } => {
            vec![MacStats(answer::stats(&settled(telemetry))).into()]
        }
        Query::MacStats { known: true, .. } => {
            vec![MacStats(answer::stats(&StatsSnapshot::default())).into()]
        }
        Query::MacStats { .. } => vec![MacStats(Stats::default()).into()],
    }
}

fn settled(telemetry: &Telemetry) -> StatsSnapshot {
    telemetry.settle();
    telemetry.stats().lock().snapshot()
}

fn sessions(context: &Context, state: &State) -> Vec<Reply> {
    context.telemetry.settle();
    let mode = context.policy.load().mode;
    let scope = Scope { epmac: state.epmac(), network: state.network(), mode };
    let (sessions, left_out) = answer::sessions(&context.telemetry, scope, MAX_LISTED);
    context.ctrl.lost(Loss::ListOverflow, left_out);
    SessionList::split(&sessions).map(Reply::from).collect()
}

/// Ends the flow of a number, or every flow for 0.
pub(crate) fn clear_sessions(telemetry: &Telemetry, id: u32) {
    if id == 0 {
        telemetry
            .flows()
            .for_each(|flow| flow.cut(CutReason::Clear));
    } else if let Some(flow) = telemetry.flows().find(FlowId(id.into())) {
        flow.cut(CutReason::Clear);
    }
}

/// Takes the agent's complete list of listening ports.
pub(crate) fn list_ports(telemetry: &Telemetry, ports: &[ListeningPort]) {
    let listed = ports.iter().map(|port| {
        let base = port.app.is_base();
        let app = AppPort {
            proto: if base { port.app } else { AppPort::default().proto },
            server: port.server,
            app: if base { AppPort::default().app } else { port.app },
            listed: true,
        };
        ((port.ip_proto, port.port), app)
    });
    telemetry.apps().lock().list(listed);
}
