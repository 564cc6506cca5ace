//! What passes, shown to the inspector; what the inspector learns, told to policy and telemetry.
//! Knows nothing of sockets: a chunk in, what becomes of it out.

use std::{sync::Arc, task::Waker};

use outrider_dpi::{Event, Finding, FlowInspector, Interest, Need};
use outrider_model::{AppId, DecisionCause, FlowKey, Mode, Side, Verdict};
use outrider_policy::AppKnowledge;
use outrider_telemetry::{Counter, FlowGuard, Identification, Outcome, Refusal, ThreatReport};

use crate::{closing, judge::Judge, relay::Shared};

/// What becomes of bytes that were just read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// They go on.
    Pass,
    /// They wait; only the client's do.
    Hold,
    /// They and the flow end here.
    Stop(Outcome),
}

/// One flow's inspector, judge and record.
#[derive(Debug)]
pub(crate) struct Inspection {
    shared: Arc<Shared>,
    flow: FlowGuard,
    judge: Judge,
    inspector: Option<Box<FlowInspector>>,
    interest: Interest,
    requests: Option<Counter>,
    /// The client opened with the HTTP/2 preface: it could not read an HTTP/1 answer.
    http2: bool,
}

impl Inspection {
    /// Judges by addresses alone and opens the flow's record; `None` if policy refuses the flow.
    pub(crate) fn open(shared: &Arc<Shared>, key: FlowKey) -> Option<Self> {
        let judge = Judge::open(key, &shared.law);
        let decision = judge.decision();
        if judge.verdict() == Verdict::Deny {
            let reason = match decision.cause {
                DecisionCause::Quarantine => Refusal::Quarantine,
                _ => Refusal::Policy,
            };
            shared.telemetry.refuse(&key, reason, Some(decision));
            return None;
        }
        let flow = shared.telemetry.open(key, decision);
        let inspector = FlowInspector::new(Arc::clone(&shared.dpi), key.server.port());
        let mut inspection = Self {
            shared: Arc::clone(shared),
            flow,
            judge,
            inspector: Some(Box::new(inspector)),
            interest: Interest { client: Need::Bytes, server: Need::Bytes },
            requests: None,
            http2: false,
        };
        inspection.publish();
        if let Step::Stop(outcome) = inspection.step(Side::Client) {
            inspection.finish(outcome);
            return None;
        }
        Some(inspection)
    }

    /// The flow's record.
    pub(crate) fn flow(&self) -> &FlowGuard {
        &self.flow
    }

    /// Ends the flow's record.
    pub(crate) fn finish(self, outcome: Outcome) {
        self.flow.finish(outcome);
    }

    /// What may be told to the client before it is reset: an answer in the words of its protocol, if
    /// the server has not begun to answer.
    pub(crate) fn answer(&self, outcome: Outcome) -> Option<Vec<u8>> {
        if self.flow.bytes()[1] > 0 {
            return None;
        }
        match self.flow.identification() {
            Identification::Known(AppId::HTTP) if !self.http2 => {
                let rule = (outcome == Outcome::Denied).then(|| self.judge.decision().rule);
                Some(closing::forbidden(self.flow.id(), rule))
            }
            Identification::Known(AppId::SSL) => Some(closing::ACCESS_DENIED.to_vec()),
            _ => None,
        }
    }

    /// From now on a signal of the record wakes the task. Whether the flow is to end, and what a
    /// changed policy makes of it.
    pub(crate) fn heed(&mut self, waker: &Waker) -> Option<Outcome> {
        self.flow.watch(waker);
        if let Some(reason) = self.flow.cut_reason() {
            return Some(reason.outcome());
        }
        if !self.flow.take_nudge() {
            return None;
        }
        self.rule();
        self.stopped()
    }

    /// Shows a chunk, before it goes on.
    pub(crate) fn feed(&mut self, side: Side, chunk: &[u8], events: &mut Vec<Event>) -> Step {
        if !self.judge.is_current(&self.shared.law) {
            self.rule();
        }
        if self.need(side) == Need::Nothing {
            return self.step(side);
        }
        if side == Side::Client && self.judge.is_pending() && chunk.starts_with(HTTP2_PREFACE) {
            self.http2 = true;
        }
        self.inspect(side, chunk, events, |dpi, events| dpi.feed(side, chunk, events))
    }

    /// So many bytes of a side went by unseen.
    pub(crate) fn skip(&mut self, side: Side, bytes: u64, events: &mut Vec<Event>) -> Step {
        if self.need(side) == Need::Nothing {
            return self.step(side);
        }
        self.inspect(side, &[], events, |dpi, events| dpi.skip(side, bytes, events))
    }

    /// A side sent its last byte. What the client sent and is held cannot become clearer.
    pub(crate) fn end(&mut self, side: Side, events: &mut Vec<Event>) -> Step {
        let step = self.inspect(side, &[], events, |dpi, events| dpi.end(side, events));
        if step == Step::Hold { self.give_up() } else { step }
    }

    /// Time or room to hold is used up.
    pub(crate) fn give_up(&mut self) -> Step {
        self.judge.give_up(&self.shared.law);
        self.publish();
        self.step(Side::Client)
    }

    /// Whether the client's bytes must wait.
    pub(crate) fn holds(&self) -> bool {
        self.judge.holds()
    }

    /// What the inspector still wants of a side.
    pub(crate) fn need(&self, side: Side) -> Need {
        if self.inspector.is_some() { self.interest.of(side) } else { Need::Nothing }
    }

    /// How many bytes may be held.
    pub(crate) fn hold_bytes(&self) -> usize {
        self.shared.settings.hold_bytes
    }

    /// Lets the inspector look, takes in what it learned of `chunk`, and says what to do.
    fn inspect(
        &mut self,
        side: Side,
        chunk: &[u8],
        events: &mut Vec<Event>,
        look: impl FnOnce(&mut FlowInspector, &mut Vec<Event>) -> Interest,
    ) -> Step {
        let Some(inspector) = &mut self.inspector else { return self.step(side) };
        events.clear();
        let interest = look(inspector, events);
        let threat = if events.is_empty() { None } else { self.learn(events, chunk) };
        self.note(interest);
        threat.map_or_else(|| self.step(side), Step::Stop)
    }

    fn step(&self, side: Side) -> Step {
        match self.stopped() {
            Some(outcome) => Step::Stop(outcome),
            None if side == Side::Client && self.judge.holds() => Step::Hold,
            None => Step::Pass,
        }
    }

    fn stopped(&self) -> Option<Outcome> {
        (self.judge.verdict() == Verdict::Deny).then_some(Outcome::Denied)
    }

    fn rule(&mut self) {
        self.judge.rule(&self.shared.law);
        self.publish();
    }

    /// Writes the decision into the record, until it is one of the policy in force: a swap between
    /// ruling and writing would otherwise be overwritten.
    fn publish(&mut self) {
        loop {
            self.flow.decide(self.judge.decision(), self.judge.mode());
            if self.judge.is_current(&self.shared.law) {
                return;
            }
            self.judge.rule(&self.shared.law);
        }
    }

    /// Keeps what the inspector still wants; frees it when that is nothing.
    fn note(&mut self, interest: Interest) {
        self.interest = interest;
        if !interest.is_over() {
            return;
        }
        self.inspector = None;
        if self.judge.is_pending() {
            self.identify(Identification::Unidentified);
            self.rule();
        }
    }

    /// Takes in what was learned; the outcome if a threat's action ends the flow.
    fn learn(&mut self, events: &mut Vec<Event>, chunk: &[u8]) -> Option<Outcome> {
        let mut stopped = false;
        let mut news = false;
        for event in events.drain(..) {
            match event {
                Event::Threat(finding) => stopped |= self.threat(&finding, chunk),
                Event::Request => self.request(),
                Event::Alpn(_) => {}
                Event::ServerSoftware(app) => self.server_software(app),
                other => news |= self.know(other),
            }
        }
        if news {
            self.rule();
        }
        stopped.then_some(Outcome::Threat)
    }

    /// Takes in what policy may ask for.
    fn know(&mut self, event: Event) -> bool {
        match event {
            Event::Application(app) => self.identify(Identification::Known(app)),
            Event::Unidentified => self.identify(Identification::Unidentified),
            Event::Host(host) => {
                self.flow.set_host(host.clone());
                self.judge.learn_host(host);
            }
            Event::Sni(name) => {
                self.flow.set_sni(name.clone());
                self.judge.learn_sni(name);
            }
            _ => return false,
        }
        true
    }

    fn identify(&mut self, identification: Identification) {
        let FlowKey { proto, server, direction, .. } = *self.flow.key();
        self.flow.identify(identification);
        let telemetry = &self.shared.telemetry;
        telemetry
            .metrics()
            .identified(direction, identification.app())
            .inc();
        if let Identification::Known(app) = identification {
            self.judge.learn_app(AppKnowledge::Known(app));
            if self.flow.is_inbound() {
                telemetry.apps().lock().learn(proto, server.port(), app);
            }
        } else {
            self.judge.learn_app(AppKnowledge::Unidentified);
        }
    }

    fn server_software(&self, app: AppId) {
        let key = self.flow.key();
        if self.flow.is_inbound() {
            self.shared
                .telemetry
                .apps()
                .lock()
                .learn_server(key.proto, key.server.port(), app);
        }
    }

    /// Counts a request; the counter is looked up once a flow.
    fn request(&mut self) {
        let (flow, telemetry) = (&self.flow, &self.shared.telemetry);
        self.requests
            .get_or_insert_with(|| {
                let app = flow.identification().app();
                telemetry.metrics().requests(flow.key().direction, app)
            })
            .inc();
    }

    /// Records a threat with the chunk it was found in; whether the flow ends for it.
    fn threat(&self, finding: &Finding, chunk: &[u8]) -> bool {
        let enforced = self.judge.mode() == Mode::Protect;
        let stopped = enforced && finding.id.action().stops();
        self.flow.raise(finding.id);
        let app = self.inspector.as_ref().and_then(|dpi| dpi.app());
        let report = ThreatReport {
            app: app.unwrap_or_default(),
            enforced,
            stopped,
            message: finding.message.clone().into_owned(),
            ..ThreatReport::new(finding.id, self.flow.key(), finding.side)
        };
        self.shared
            .telemetry
            .threat(report.with_evidence(chunk, false));
        stopped
    }
}

/// How an HTTP/2 client begins (RFC 9113, section 3.4); the rest follows from that.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

#[cfg(test)]
mod tests;
