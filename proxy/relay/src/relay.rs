//! The relay: one for the process, one call a flow.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use outrider_dpi::DpiConfig;
use outrider_model::{Direction, FlowKey, Verdict};
use outrider_telemetry::{CutReason, FlowState, Grip, Outcome, Refusal, Telemetry};
use tokio::net::TcpStream;
use tracing::debug;

use crate::{
    Delivery, Legs, PolicyHandle, PolicyView, RelaySettings, closing, dial,
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
    pub(crate) law: Arc<Law>,
    pub(crate) dpi: Arc<DpiConfig>,
    pub(crate) telemetry: Telemetry,
    pub(crate) legs: Arc<Legs>,
    pub(crate) cut: AtomicBool,
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
        let (law, cut) = (Arc::new(Law::new(policy)), AtomicBool::new(false));
        let legs = Arc::default();
        Self(Arc::new(Shared { settings, law, dpi, telemetry, legs, cut }))
    }

    /// The connections of the flows, for who watches the wire.
    #[must_use]
    pub fn legs(&self) -> &Arc<Legs> {
        &self.0.legs
    }

    /// What its flows are judged by, for flows that are seen and not relayed.
    #[must_use]
    pub fn law(&self) -> &Arc<Law> {
        &self.0.law
    }

    /// Which detectors are on.
    #[must_use]
    pub fn dpi(&self) -> &Arc<DpiConfig> {
        &self.0.dpi
    }

    /// Runs one flow to its end; says why its server was not reached, if it was dialled and was not.
    /// Dropped before, it resets both sides and reports the flow as cut.
    ///
    /// A flow lives much longer than its dial and its farewell, so those have allocations of their
    /// own: what stays is as small as can be.
    pub fn run(
        self,
        downstream: TcpStream,
        key: FlowKey,
        delivery: Delivery,
    ) -> impl Future<Output = Option<Refusal>> + Send + use<> {
        let shared = Arc::clone(&self.0);
        if key.direction == Direction::Inbound {
            // What the workload opens reaches us on loopback.
            shared.legs.add(key.server, key.client);
        }
        let opened = Box::pin(self.open(Leg::new(downstream), key, delivery));
        async move {
            let mut pump = match opened.await {
                Ok(pump) => pump,
                Err(refusal) => return refusal,
            };
            let outcome = poll_fn(|context| pump.poll(context, &shared.settings)).await;
            if let Some((downstream, answer)) = pump.close(outcome) {
                Box::pin(closing::say(downstream, &answer)).await;
            }
            None
        }
    }

    /// Ends every flow that is relayed and each that still comes, as at the end of a drain; says how many live.
    pub fn cut_all(&self) -> usize {
        // A flow enters the table before it looks: it is found here, or it finds this.
        self.0.cut.store(true, Ordering::SeqCst);
        let mut cut = 0;
        self.0.telemetry.flows().for_each(|flow| {
            if flow.grip() == Grip::Held {
                flow.cut(CutReason::Drain);
                cut += 1;
            }
        });
        cut
    }

    /// Judges and dials. An error is the end of it, and says why if it was dialled.
    async fn open(
        self,
        downstream: Leg,
        key: FlowKey,
        delivery: Delivery,
    ) -> Result<Pump, Option<Refusal>> {
        let inspection = Inspection::open(&self.0, key).ok_or(None)?;
        let flow = Arc::clone(inspection.flow().state());
        if self.0.cut.load(Ordering::SeqCst) {
            flow.cut(CutReason::Drain);
        }
        match self.dial(&flow, delivery).await {
            Ok(upstream) => {
                flow.establish();
                Ok(Pump::new(downstream, Leg::new(upstream), inspection))
            }
            Err((outcome, refusal)) => {
                inspection.finish(outcome);
                Err(refusal)
            }
        }
    }

    async fn dial(
        &self,
        flow: &FlowState,
        delivery: Delivery,
    ) -> Result<TcpStream, (Outcome, Option<Refusal>)> {
        let dialled = tokio::select! {
            biased;
            reason = flow.wait_cut() => return Err((reason.outcome(), None)),
            dialled = dial::dial(delivery, self.0.settings.connect_timeout, &self.0.legs) => dialled,
        };
        dialled.map_err(|error| {
            let direction = flow.key().direction;
            let refusal = error.refusal();
            self.0.telemetry.metrics().refused(direction, refusal).inc();
            debug!(upstream.addr = %delivery.target, reason = error.reason(), %error, "not dialled");
            (Outcome::DialFailed, Some(refusal))
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
        if flow.grip() != Grip::Held {
            // Whoever sees its packets asks again before the next one.
            flow.nudge();
            return false;
        }
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
