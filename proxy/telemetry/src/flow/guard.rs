//! The guard that reports a flow exactly once.

use std::{ops::Deref, sync::Arc};

use outrider_model::Direction;

use super::{FlowState, Outcome};
use crate::Telemetry;

/// Keeps the flow in the table of live flows; reports it once when dropped, however that comes about.
#[derive(Debug)]
pub struct FlowGuard {
    telemetry: Telemetry,
    state: Arc<FlowState>,
    outcome: Outcome,
}

impl FlowGuard {
    pub(crate) fn new(telemetry: Telemetry, state: Arc<FlowState>) -> Self {
        Self { telemetry, state, outcome: Outcome::Cut }
    }

    /// The flow, to be shared.
    #[must_use]
    pub fn state(&self) -> &Arc<FlowState> {
        &self.state
    }

    /// Ends the flow; until this is called it counts as cut.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Whether the workload is the server.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.state.key.direction == Direction::Inbound
    }
}

impl Deref for FlowGuard {
    type Target = FlowState;

    fn deref(&self) -> &FlowState {
        &self.state
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.telemetry.close(&self.state, self.outcome);
        let flow = &*self.state;
        let [bytes_client, bytes_server] = flow.bytes();
        tracing::debug!(
            target: "access",
            direction = flow.key.direction.label(),
            flow.id = flow.id.0,
            downstream.addr = %flow.key.client,
            orig.dst = %flow.key.server,
            app = %flow.identification().app(),
            rule.id = flow.decision().rule.0,
            verdict = flow.verdict().label(),
            bytes_client,
            bytes_server,
            reason = self.outcome.label(),
            "flow ended"
        );
    }
}
