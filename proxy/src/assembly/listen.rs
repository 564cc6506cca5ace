//! Accept, route, relay; then drain and cut.

use std::{sync::Arc, time::Duration};

use outrider_capture::{Accepted, CaptureError, CaptureMode, Listener};
use outrider_model::{Direction, FlowKey, IpProto};
use outrider_relay::{Delivery, Relay};
use outrider_telemetry as telemetry;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::marks::Marks;
use super::route::{Arrival, Refusal, guarded_ports, route};
use crate::{context::SharedContext, packets::Pass};

#[cfg(test)]
mod tests;

/// Turns accepted connections into flows, each a task of its own.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    context: SharedContext,
    relay: Relay,
    own_ports: Arc<[u16]>,
    marks: Option<Marks>,
    flows: TaskTracker,
}

impl Intake {
    /// An intake that guards the given ports of ours besides the reserved ones, and marks what it dials if
    /// it may.
    #[must_use]
    pub(crate) fn new(
        context: SharedContext,
        relay: Relay,
        own_ports: &[u16],
        marks: Option<Marks>,
    ) -> Self {
        Self {
            context,
            relay,
            own_ports: guarded_ports(own_ports).into(),
            marks,
            flows: TaskTracker::new(),
        }
    }

    /// Accepts until `drain` fires. The listener closes with the future, so that who dials later is
    /// refused by the kernel.
    pub(crate) async fn accept(
        self,
        listener: Listener,
        direction: Direction,
        drain: CancellationToken,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => self.take(accepted, direction),
                Err(error) => self.failed(&error, direction),
            }
        }
    }

    fn take(&self, accepted: Accepted, direction: Direction) {
        let Accepted { stream, peer, original, scope, by, .. } = accepted;
        let arrival = Arrival { peer, original: original.addr(), scope, by };
        let identity = self.context.identity.load();
        if let Some(by) =
            by.filter(|_| direction == Direction::Inbound && !identity.is_local(peer.ip()))
        {
            self.context.legs.arrived(by == CaptureMode::Tproxy);
        }
        match route(arrival, direction, &identity, &self.own_ports) {
            Ok((key, mut delivery)) => {
                delivery.mark = self.marks.and_then(|marks| marks.of(delivery.source));
                match self.context.metering.open(&key, true) {
                    Ok(pass) => self.start(stream, key, delivery, pass),
                    Err(refusal) => self.refuse(&stream, arrival, direction, refusal),
                }
            }
            Err(refusal) => self.refuse(&stream, arrival, direction, refusal.into()),
        }
    }

    /// Runs a flow in a task of its own.
    fn start(&self, stream: TcpStream, key: FlowKey, delivery: Delivery, pass: Option<Pass>) {
        let metering = Arc::clone(&self.context.metering);
        let flow = self.relay.clone().run(stream, key, delivery);
        self.flows.spawn(async move {
            if flow.await.is_some_and(is_in_vain) {
                metering.failed(&key);
            }
            drop(pass);
        });
    }

    fn refuse(
        &self,
        stream: &TcpStream,
        arrival: Arrival,
        direction: Direction,
        why: telemetry::Refusal,
    ) {
        let Arrival { peer, original, .. } = arrival;
        let key = FlowKey { client: peer, server: original, proto: IpProto::TCP, direction };
        self.context.telemetry.refuse(&key, why, None);
        debug!(
            downstream.addr = %peer,
            orig.dst = %original,
            direction = direction.label(),
            reason = why.label(),
            "refused"
        );
        if let Err(error) = stream.set_zero_linger() {
            debug!(%error, "closed without a reset");
        }
    }

    fn failed(&self, error: &CaptureError, direction: Direction) {
        self.context.ctrl.accept_failed(direction, error.reason());
        if matches!(error, CaptureError::OriginalDst(_)) {
            let refused = telemetry::Refusal::NoOriginalDst;
            self.context
                .telemetry
                .metrics()
                .refused(direction, refused)
                .inc();
        }
        debug!(%error, direction = direction.label(), "accept failed");
    }

    /// Waits until the flows have ended, `grace` at most and not beyond `hurry`, then cuts those
    /// left. Says how many.
    pub(crate) async fn finish(self, grace: Duration, hurry: impl Future<Output = ()>) -> usize {
        self.flows.close();
        info!(open = self.flows.len(), ?grace, "draining");
        tokio::select! {
            biased;
            () = self.flows.wait() => return 0,
            () = hurry => {}
            () = tokio::time::sleep(grace) => {}
        }
        let left = self.flows.len();
        warn!(open = left, "grace period over, cutting the flows left");
        self.relay.cut_all();
        self.flows.wait().await;
        left
    }
}

/// Whether the server is why a connection came to nothing.
fn is_in_vain(refusal: telemetry::Refusal) -> bool {
    use telemetry::Refusal::{ConnectTimeout, ConnectionRefused, Unreachable};
    matches!(refusal, ConnectionRefused | Unreachable | ConnectTimeout)
}

impl From<Refusal> for telemetry::Refusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Direct => Self::NotRedirected,
            Refusal::OwnPort | Refusal::ToItself | Refusal::OwnDelivery => Self::OwnPort,
        }
    }
}
