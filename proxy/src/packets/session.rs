//! One flow of which only packets are seen: judged, identified, counted, reported like any other.

use std::sync::Arc;

use outrider_dpi::{DpiConfig, Event, Finding, PassiveInspector};
use outrider_model::{AppId, FlowKey, IpProto, Mode, Side, Verdict};
use outrider_packet::{Ends, FlowEnd, FlowRecord};
use outrider_policy::AppKnowledge;
use outrider_relay::{Judge, Law};
use outrider_telemetry::{FlowGuard, Grip, Identification, Outcome, Telemetry, ThreatReport};

use super::{Metering, Pass, questions::MAX_PASSED};

/// What sessions share.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    /// What is remembered of them.
    pub telemetry: Telemetry,
    /// What they are judged by.
    pub law: Arc<Law>,
    /// Which detectors are on.
    pub dpi: Arc<DpiConfig>,
    /// What happens too often.
    pub metering: Arc<Metering>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    flow: FlowGuard,
    judge: Judge,
    reading: PassiveInspector,
    /// Bytes and packets of both sides that are counted already.
    counted: [(u64, u64); 2],
    /// While it is one of those that its client has open.
    _pass: Option<Pass>,
    /// It was one too many.
    refused: bool,
    /// The port is in the table of what the workload serves.
    served: bool,
}

/// What is to be done about a session's flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub(crate) struct Fate {
    /// It may not go on: policy denies it, or a threat was found whose action stops it.
    pub condemned: bool,
}

impl Session {
    /// Judges a flow by its addresses and enters it into the table of flows. Its record counts as one
    /// session even if it is denied: each further packet is the same violation.
    pub(crate) fn open(scene: &Scene, key: FlowKey, grip: Grip, mid_stream: bool) -> Self {
        let reading = PassiveInspector::new(&scene.dpi, key.proto, key.server.port(), mid_stream);
        let admission = if mid_stream && key.proto == IpProto::TCP {
            (None, false)
        } else {
            match scene.metering.open(&key, grip == Grip::Gated) {
                Ok(pass) => (pass, false),
                Err(_too_many) => (None, true),
            }
        };
        Self::make(scene, key, grip, reading, admission)
    }

    /// The same of a flow of which nothing but its ends is seen: it is there, and stays unidentified.
    pub(crate) fn unread(scene: &Scene, key: FlowKey) -> Self {
        let session = Self::make(scene, key, Grip::Seen, PassiveInspector::over(), (None, false));
        session.flow.establish();
        session
    }

    fn make(
        scene: &Scene,
        key: FlowKey,
        grip: Grip,
        reading: PassiveInspector,
        (pass, refused): (Option<Pass>, bool),
    ) -> Self {
        let judge = Judge::open(key, &scene.law);
        let flow = scene.telemetry.open_with(key, grip, judge.decision());
        let mut session = Self {
            flow,
            judge,
            reading,
            counted: [(0, 0); 2],
            served: false,
            _pass: pass,
            refused,
        };
        if session.reading.is_over() {
            session.identify(scene, Identification::Unidentified);
            session.judge.rule(&scene.law);
        }
        session.publish(scene);
        session
    }

    /// The flow's record.
    pub(crate) fn flow(&self) -> &FlowGuard {
        &self.flow
    }

    /// Whether its packets may not pass.
    pub(crate) fn fate(&self) -> Fate {
        let denied = self.refused || self.judge.verdict() == Verdict::Deny;
        Fate { condemned: denied && self.flow.grip() == Grip::Gated }
    }

    /// Shows bytes of a side: a datagram, or the next part of a stream.
    pub(crate) fn data(
        &mut self,
        scene: &Scene,
        side: Side,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Fate {
        if !self.judge.is_current(&scene.law) {
            self.rule(scene);
        }
        if self.reading.is_over() {
            return self.fate();
        }
        let port = self.flow.key().server.port();
        self.reading.data((&scene.dpi, port), side, bytes, events);
        self.learn(scene, bytes, events)
    }

    /// Bytes of the peers that its inspector holds.
    pub(crate) fn held(&self) -> usize {
        self.reading.held()
    }

    /// Its inspector holds too much: what it has not said by now it never will.
    pub(crate) fn unread_from_here(&mut self, scene: &Scene) -> Fate {
        self.reading.stop();
        if self.flow.identification() == Identification::Pending {
            self.identify(scene, Identification::Unidentified);
            self.rule(scene);
        }
        self.fate()
    }

    /// Bytes of a stream passed and were not seen.
    pub(crate) fn lost(&mut self, scene: &Scene, side: Side, bytes: u64, events: &mut Vec<Event>) {
        let known = self.flow.identification().app() != AppId::UNKNOWN;
        let _over = self.reading.lost(side, bytes, known, events);
        let _same = self.learn(scene, &[], events);
    }

    /// A side of a stream sent its last byte.
    pub(crate) fn ended(&mut self, scene: &Scene, side: Side, events: &mut Vec<Event>) {
        self.flow.half_close(side);
        self.reading.ended(side, events);
        let _same = self.learn(scene, &[], events);
    }

    /// Bytes that the workload's end has sent, and that came to it, since this was last called.
    pub(crate) fn carried(&self, [sent, came]: [u64; 2]) {
        let sides = if self.flow.is_inbound() {
            [Side::Server, Side::Client]
        } else {
            [Side::Client, Side::Server]
        };
        for (side, bytes) in sides.into_iter().zip([sent, came]) {
            if bytes > 0 {
                self.flow.count_packets(side, bytes, 1);
            }
        }
    }

    /// A packet was taken in: counts what came since the last one. Where packets wait for a verdict, a flow
    /// that the queue gives up on is given up on here too.
    pub(crate) fn packet(&mut self, scene: &Scene, record: &FlowRecord) {
        let packets = record.client.packets.saturating_add(record.server.packets);
        if self.judge.holds()
            && self.flow.grip() == Grip::Gated
            && record.ends.proto != IpProto::TCP
            && packets > MAX_PASSED.into()
        {
            self.judge.give_up(&scene.law);
            self.publish(scene);
        }
        let stopped = self.fate().condemned;
        for (side, counted) in [Side::Client, Side::Server]
            .into_iter()
            .zip(&mut self.counted)
        {
            let now = (record.side(side).bytes, record.side(side).packets);
            let (bytes, packets) =
                (now.0.saturating_sub(counted.0), now.1.saturating_sub(counted.1));
            *counted = now;
            if packets > 0 && !stopped {
                self.flow.count_packets(side, bytes, packets);
            }
        }
        self.serve(scene, record);
        if !stopped && !self.flow.is_established() && self.is_session(record) {
            self.flow.establish();
        }
    }

    /// The workload serves what it has answered; a stranger's datagram to any port proves nothing.
    fn serve(&mut self, scene: &Scene, record: &FlowRecord) {
        if self.served || !self.flow.is_inbound() || record.server.packets == 0 {
            return;
        }
        if let Identification::Known(app) = self.flow.identification() {
            self.served = true;
            let FlowKey { proto, server, .. } = *self.flow.key();
            let apps = scene.telemetry.apps();
            apps.lock().learn(proto, server.port(), app);
        }
    }

    /// Whether enough was seen to count the flow as a session: of ICMP an answer, of TCP its handshake,
    /// of the rest an answer or all that will ever be known of it.
    fn is_session(&self, record: &FlowRecord) -> bool {
        let answered = record.server.packets > 0;
        match record.ends.proto {
            IpProto::ICMP | IpProto::ICMPV6 => answered,
            IpProto::TCP => record.established,
            _ => answered || self.flow.identification() != Identification::Pending,
        }
    }

    /// Something is wrong with a packet itself, which is given as far as it was captured.
    pub(crate) fn found(&self, scene: &Scene, finding: &Finding, packet: &[u8]) -> Fate {
        let stops = self.threat(scene, finding, packet, true);
        Fate { condemned: stops || self.fate().condemned }
    }

    /// Judges again under the policy in force.
    pub(crate) fn rule(&mut self, scene: &Scene) {
        self.judge.rule(&scene.law);
        self.publish(scene);
    }

    /// The flow is over: reports what is left.
    pub(crate) fn close(mut self, scene: &Scene, end: FlowEnd, events: &mut Vec<Event>) {
        self.reading.close(events);
        let fate = self.learn(scene, &[], events);
        let outcome = match end {
            _ if fate.condemned => Outcome::Denied,
            FlowEnd::Closed => Outcome::Done,
            FlowEnd::Reset => Outcome::Reset,
            FlowEnd::Silent if self.flow.key().proto == IpProto::TCP => Outcome::TimedOut,
            FlowEnd::Silent => Outcome::Done,
            FlowEnd::Evicted => Outcome::Evicted,
            FlowEnd::Open => Outcome::Cut,
        };
        self.flow.finish(outcome);
    }

    /// Ends the record before the flow is over.
    pub(crate) fn finish(self, outcome: Outcome) {
        self.flow.finish(outcome);
    }

    /// Takes in what the inspector said of `bytes`.
    fn learn(&mut self, scene: &Scene, bytes: &[u8], events: &mut Vec<Event>) -> Fate {
        let (mut news, mut stopped) = (false, false);
        for event in events.drain(..) {
            match event {
                Event::Threat(finding) => stopped |= self.threat(scene, &finding, bytes, false),
                other => news |= self.know(scene, other),
            }
        }
        if news {
            self.rule(scene);
        }
        Fate { condemned: stopped || self.fate().condemned }
    }

    /// Whether policy may make something of it.
    fn know(&mut self, scene: &Scene, event: Event) -> bool {
        let key = *self.flow.key();
        match event {
            Event::Application(app) => self.identify(scene, Identification::Known(app)),
            Event::Unidentified => self.identify(scene, Identification::Unidentified),
            Event::Host(host) => {
                self.flow.set_host(host.clone());
                self.judge.learn_host(host);
            }
            Event::Sni(name) => {
                self.flow.set_sni(name.clone());
                self.judge.learn_sni(name);
            }
            Event::ServerSoftware(app) if self.flow.is_inbound() => {
                let apps = scene.telemetry.apps();
                apps.lock().learn_server(key.proto, key.server.port(), app);
                return false;
            }
            Event::Request => {
                let app = self.flow.identification().app();
                scene.telemetry.metrics().requests(key.direction, app).inc();
                return false;
            }
            _ => return false,
        }
        true
    }

    fn identify(&mut self, scene: &Scene, identification: Identification) {
        let direction = self.flow.key().direction;
        self.flow.identify(identification);
        let app = identification.app();
        scene.telemetry.metrics().identified(direction, app).inc();
        let knowledge = match identification {
            Identification::Known(app) => AppKnowledge::Known(app),
            _ => AppKnowledge::Unidentified,
        };
        self.judge.learn_app(knowledge);
    }

    /// Writes the decision into the record, until it is one of the policy in force.
    fn publish(&mut self, scene: &Scene) {
        loop {
            self.flow.decide(self.judge.decision(), self.judge.mode());
            if self.judge.is_current(&scene.law) {
                return;
            }
            self.judge.rule(&scene.law);
        }
    }

    /// Whether a packet that comes now can be stopped. The queue is asked about the first one of a flow that
    /// is not TCP, and about more only while its application may still deny it: after that the kernel lets
    /// its packets pass.
    fn is_asked_about(&self) -> bool {
        let is_first = self.counted.iter().all(|(_, packets)| *packets == 0);
        self.flow.key().proto == IpProto::TCP || is_first || self.judge.holds()
    }

    /// Records a threat with the bytes it was found in; whether the packet may not pass for it.
    fn threat(&self, scene: &Scene, finding: &Finding, bytes: &[u8], is_packet: bool) -> bool {
        let enforced = self.judge.mode() == Mode::Protect && self.flow.grip() == Grip::Gated;
        let stopped = enforced && finding.id.action().stops() && self.is_asked_about();
        self.flow.raise(finding.id);
        let report = ThreatReport {
            app: self.flow.identification().app(),
            enforced,
            stopped,
            message: finding.message.clone().into_owned(),
            ..ThreatReport::new(finding.id, self.flow.key(), finding.side)
        };
        scene
            .telemetry
            .threat(report.with_evidence(bytes, is_packet));
        stopped
    }
}

/// The key of a flow's record. For ICMP the client's port is the identifier and the server's the
/// request's code and type.
pub(crate) fn key(ends: &Ends, direction: outrider_model::Direction) -> FlowKey {
    FlowKey { client: ends.client, server: ends.server, proto: ends.proto, direction }
}
