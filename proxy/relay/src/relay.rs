//! The relay: one for the process, one call a flow.

use std::{future::poll_fn, sync::Arc};

use outrider_dpi::DpiConfig;
use outrider_model::{FlowKey, Verdict};
use outrider_telemetry::{CutReason, FlowState, Outcome, Telemetry};
use tokio::net::TcpStream;
use tracing::debug;

use crate::{
    Delivery, PolicyHandle, PolicyView, RelaySettings, closing, dial,
    inspection::Inspection,
    judge::{self, Law},
    leg::Leg,
    pump::Pump,
};

/// Runs flows; clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Relay(Arc<Shared>);

/// What the flows share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: RelaySettings,
    pub(crate) law: Law,
    pub(crate) dpi: Arc<DpiConfig>,
    pub(crate) telemetry: Telemetry,
}

impl Relay {
    /// A relay under a policy that may be swapped while flows run.
    #[must_use]
    pub fn new(
        settings: RelaySettings,
        policy: PolicyHandle,
        dpi: Arc<DpiConfig>,
        telemetry: Telemetry,
    ) -> Self {
        Self(Arc::new(Shared { settings, law: Law::new(policy), dpi, telemetry }))
    }

    /// Runs one flow to its end. Dropped before, it resets both sides and reports the flow as cut.
    pub async fn run(self, downstream: TcpStream, key: FlowKey, delivery: Delivery) {
        let downstream = Leg::new(downstream);
        let Some(inspection) = Inspection::open(&self.0, key) else { return };
        let flow = Arc::clone(inspection.flow().state());
        let upstream = match self.dial(&flow, delivery).await {
            Ok(upstream) => Leg::new(upstream),
            Err(outcome) => return inspection.finish(outcome),
        };
        flow.establish();
        let mut pump = Pump::new(downstream, upstream, inspection);
        let outcome = poll_fn(|context| pump.poll(context, &self.0.settings)).await;
        if let Some((downstream, answer)) = pump.close(outcome) {
            closing::say(downstream, &answer).await;
        }
    }

    async fn dial(&self, flow: &FlowState, delivery: Delivery) -> Result<TcpStream, Outcome> {
        let dialled = tokio::select! {
            biased;
            reason = flow.wait_cut() => return Err(reason.outcome()),
            dialled = dial::dial(delivery, self.0.settings.connect_timeout) => dialled,
        };
        dialled.map_err(|error| {
            let direction = flow.key().direction;
            self.0.telemetry.metrics().refused(direction, error.refusal()).inc();
            debug!(upstream.addr = %delivery.target, reason = error.reason(), %error, "not dialled");
            Outcome::DialFailed
        })
    }

    /// After a policy swap: judges every live flow again and cuts those that may not go on. Says
    /// how many were judged and how many cut.
    pub fn rejudge(&self) -> (usize, usize) {
        let view = self.0.law.view();
        let (mut judged, mut cut) = (0, 0);
        self.0.telemetry.flows().for_each(|flow| {
            judged += 1;
            cut += usize::from(self.rejudge_flow(flow, &view));
        });
        (judged, cut)
    }

    /// Whether the flow is cut. One that goes on sees the new policy with its next bytes; only if bytes
    /// wait for a decision, or will, it must look at once.
    fn rejudge_flow(&self, flow: &FlowState, view: &PolicyView) -> bool {
        let names = flow.names();
        let app = judge::knowledge(flow.identification());
        let query = judge::query(flow.key(), app, names.vhost(), view.mode);
        let before = flow.decision();
        let decision = self.0.law.decide(view, &query);
        flow.decide(decision, view.mode);
        if decision.verdict(view.mode) == Verdict::Deny {
            flow.cut(CutReason::Policy);
            return true;
        }
        if before.action.undecided() || decision.action.undecided() {
            flow.nudge();
        }
        false
    }
}
