//! What becomes of a packet that waits in the kernel: the decision, without the kernel.

use std::{collections::HashMap, time::Duration};

use outrider_dpi::{Event, PassiveInspector};
use outrider_model::{Direction, FlowKey, IpProto, Mode, Side, Verdict};
use outrider_packet::{Ends, Peek};
use outrider_policy::AppKnowledge;
use outrider_relay::Judge;

use super::{
    session::{self, Scene},
    sort::{self, Ignored},
};
use crate::identity::Identity;

/// What a queued packet is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Answer {
    /// Its flow may pass until policy changes.
    Allow,
    /// It may pass; the flow's next packet is asked about again.
    Pass,
    /// It is gone.
    Drop,
}

impl Answer {
    /// The closed label of metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// Flows that are not settled: those whose application is still to be learned, and those that are denied
/// for theirs. Bounded: beyond the cap, those asked about least lately are forgotten and begin anew.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    /// Asked about since `turned`.
    recent: HashMap<Ends, Question>,
    /// Asked about before, and not since.
    older: HashMap<Ends, Question>,
    turned: Duration,
    /// Bytes that inspectors held when they were put into `recent`.
    held: usize,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Question {
    judge: Judge,
    reading: PassiveInspector,
    passed: u8,
}

impl Questions {
    /// Decides about one packet that comes in or goes out. What cannot be read passes only where nothing is
    /// enforced.
    pub(crate) fn ask(
        &mut self,
        scene: &Scene,
        pod: &Identity,
        inward: bool,
        packet: Option<&Peek<'_>>,
        now: Duration,
    ) -> Answer {
        let view = scene.law.view();
        let enforced = view.mode == Mode::Protect || view.quarantined;
        drop(view);
        let Some(packet) = packet else {
            return if enforced { Answer::Drop } else { Answer::Pass };
        };
        let sorted = match sort::sort(&packet.ends, pod) {
            // The kernel knows addresses of the pod that we have not heard of yet, and which way it goes.
            Err(Ignored::NotOurs | Ignored::Loopback) => Ok(direction(inward, packet.side)),
            sorted => sorted,
        };
        match sorted {
            // About a flow that may have no verdict yet: the mark would be that flow's.
            Err(Ignored::Error) => Answer::Pass,
            Err(_) => Answer::Allow,
            Ok(_) if !enforced => Answer::Allow,
            Ok(direction) => self.judge(scene, &session::key(&packet.ends, direction), packet, now),
        }
    }

    fn judge(&mut self, scene: &Scene, key: &FlowKey, packet: &Peek<'_>, now: Duration) -> Answer {
        let stops = |id| scene.dpi.is_on(id) && outrider_model::ThreatId::action(id).stops();
        if packet.finding.is_some_and(|(id, _)| stops(id)) {
            return Answer::Drop;
        }
        let mut question = self
            .take(&packet.ends)
            .unwrap_or_else(|| Question::new(scene, *key));
        let answer = question.ask(scene, packet, &mut self.events);
        if question.is_open(answer) {
            self.keep(packet.ends, question, now);
        }
        match answer {
            Answer::Allow | Answer::Pass if scene.metering.stops(key, packet.side) => Answer::Drop,
            // Each one is asked about, or a flood that was allowed could not be stopped.
            Answer::Allow if scene.metering.watches(key) => Answer::Pass,
            answer => answer,
        }
    }

    fn take(&mut self, ends: &Ends) -> Option<Question> {
        self.recent.remove(ends).or_else(|| self.older.remove(ends))
    }

    fn keep(&mut self, ends: Ends, question: Question, now: Duration) {
        let held = self.held.saturating_add(question.reading.held());
        if self.recent.len() >= MAX_RECENT || held > MAX_HELD {
            self.turn(now);
        }
        self.held = self.held.saturating_add(question.reading.held());
        self.recent.insert(ends, question);
    }

    /// Flows that are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    /// Forgets what nobody asked about for a while.
    pub(crate) fn advance(&mut self, now: Duration) {
        if now.saturating_sub(self.turned) >= PATIENCE {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Duration) {
        self.older = std::mem::take(&mut self.recent);
        self.turned = now;
        self.held = 0;
    }
}

impl Question {
    fn new(scene: &Scene, key: FlowKey) -> Self {
        let reading = PassiveInspector::new(&scene.dpi, key.proto, key.server.port(), false);
        let mut judge = Judge::open(key, &scene.law);
        if key.proto != IpProto::UDP {
            // Nobody knows applications of what is neither TCP nor UDP.
            judge.learn_app(AppKnowledge::Unidentified);
            judge.rule(&scene.law);
        }
        Self { judge, reading, passed: 0 }
    }

    fn ask(&mut self, scene: &Scene, packet: &Peek<'_>, events: &mut Vec<Event>) -> Answer {
        if !self.judge.is_current(&scene.law) {
            self.judge.rule(&scene.law);
        }
        if self.judge.verdict() == Verdict::Deny {
            return Answer::Drop;
        }
        let port = packet.ends.server.port();
        self.reading
            .data((&scene.dpi, port), packet.side, packet.payload, events);
        if self.learn(scene, events) || self.judge.verdict() == Verdict::Deny {
            return Answer::Drop;
        }
        if !self.judge.holds() {
            return Answer::Allow;
        }
        if self.passed < MAX_PASSED {
            self.passed = self.passed.saturating_add(1);
            return Answer::Pass;
        }
        self.judge.give_up(&scene.law);
        if self.judge.verdict() == Verdict::Deny { Answer::Drop } else { Answer::Allow }
    }

    /// Whether the next packet's answer hangs on what was seen so far.
    fn is_open(&self, answer: Answer) -> bool {
        match answer {
            Answer::Allow => false,
            Answer::Pass => true,
            Answer::Drop => !self.judge.is_pending(),
        }
    }

    /// Takes in what the inspector said; whether it found a threat that stops the packet.
    fn learn(&mut self, scene: &Scene, events: &mut Vec<Event>) -> bool {
        let (mut news, mut stopped) = (false, false);
        for event in events.drain(..) {
            match event {
                Event::Application(app) => self.judge.learn_app(AppKnowledge::Known(app)),
                Event::Unidentified => self.judge.learn_app(AppKnowledge::Unidentified),
                Event::Host(host) => self.judge.learn_host(host),
                Event::Sni(name) => self.judge.learn_sni(name),
                Event::Threat(finding) => {
                    stopped |= finding.id.action().stops();
                    continue;
                }
                _ => continue,
            }
            news = true;
        }
        if news {
            self.judge.rule(&scene.law);
        }
        stopped
    }
}

/// The direction of a packet's flow by the way it goes.
fn direction(inward: bool, sender: Side) -> Direction {
    if inward == (sender == Side::Client) { Direction::Inbound } else { Direction::Outbound }
}

/// Packets of a flow that pass while its application is not known and may yet deny it: one each way, so
/// that a server's answer may tell. The first one has been read before it passes: where its bytes tell, as
/// those of every datagram protocol here do, nothing passes at all.
pub(crate) const MAX_PASSED: u8 = 2;
/// Flows that were asked about lately; twice as many are remembered.
pub(crate) const MAX_RECENT: usize = 4096;
/// Bytes that the inspectors of flows asked about lately may hold; all together twice as many.
pub(crate) const MAX_HELD: usize = 4 << 20;
/// How long a flow may be silent before its answers are forgotten: as long as the engine keeps a UDP flow.
const PATIENCE: Duration = Duration::from_secs(30);
