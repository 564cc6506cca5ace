//! Names from the wire, where the pod's questions are not redirected to the proxy: what a tap shows of
//! questions and answers. No sockets; time is an argument.
//!
//! An answer counts only if it answers a question that was seen to leave the pod for one of its name
//! servers a short while ago: id, both addresses and ports, and the question itself must be the same, and
//! the answer must have come in by an interface. The first one counts and no other.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use outrider_dpi::dns_message::{DnsAddress, DnsHeader, given};
use outrider_model::{Direction, FlowKey, Side};
use outrider_policy::Name;

use super::{
    DnsMetrics,
    asked::{Asked, Meaning},
    metrics::{Outcome, Transport},
};

#[cfg(test)]
mod tests;

/// Questions that wait for an answer; beyond it the oldest is forgotten, counted.
pub(crate) const MAX_ASKED: usize = 1_024;
/// How long a question waits: longer than any client does before it asks again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Answers with a wrong id that a question survives: who guesses ids gets no more tries than that.
pub(crate) const MAX_GUESSES: u8 = 8;

/// Questions of one port that may wait for answers of one server at once.
pub(crate) const MAX_PORT_ASKED: usize = 32;

/// Questions that were seen and have no answer yet.
#[derive(Debug)]
pub(crate) struct Overheard {
    servers: Vec<SocketAddr>,
    metrics: DnsMetrics,
    asked: HashMap<Ends, Vec<Waiting>>,
    /// When each was asked, the oldest first; what is not there any more is passed over.
    order: VecDeque<(Duration, Ends)>,
}

/// Who asked whom.
type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
struct Waiting {
    question: Asked,
    since: Duration,
    guesses: u8,
}

impl Overheard {
    /// Nothing was asked yet of these name servers, the pod's.
    pub(crate) fn new(servers: Vec<SocketAddr>, metrics: DnsMetrics) -> Self {
        Self { servers, metrics, asked: HashMap::new(), order: VecDeque::new() }
    }

    /// A datagram of a flow came by; `came_in` says whether by an interface. What is to be learned from
    /// it, if anything.
    pub(crate) fn hear(
        &mut self,
        key: &FlowKey,
        (side, came_in): (Side, bool),
        message: &[u8],
        now: Duration,
    ) -> Option<(Name, Vec<DnsAddress>)> {
        if key.direction != Direction::Outbound || !self.servers.contains(&key.server) {
            return None;
        }
        self.forget(now);
        let ends = (key.client, key.server);
        match (side, came_in) {
            (Side::Client, false) => {
                self.question(ends, message, now);
                None
            }
            (Side::Server, true) => self.answer(ends, message),
            // Somebody in the pod writes answers, or somebody outside its questions.
            _ => {
                self.metrics.stray();
                None
            }
        }
    }

    fn question(&mut self, ends: Ends, message: &[u8], since: Duration) {
        let Some(question) = Asked::read(message).filter(|asked| asked.name().is_some()) else {
            return;
        };
        let waiting = self.asked.entry(ends).or_default();
        if waiting.len() >= MAX_PORT_ASKED {
            self.metrics.query(Transport::Wire, Outcome::Overflow);
            return;
        }
        waiting.push(Waiting { question, since, guesses: 0 });
        self.order.push_back((since, ends));
        while self.order.len() > MAX_ASKED {
            self.forget_first(Outcome::Overflow);
        }
    }

    fn answer(&mut self, ends: Ends, message: &[u8]) -> Option<(Name, Vec<DnsAddress>)> {
        let id = DnsHeader::read(message)?.id;
        let waiting = self.asked.entry(ends).or_default();
        let found = waiting.iter().enumerate().find_map(|(at, waiting)| {
            let question = &waiting.question;
            let meaning = (question.id() == id).then(|| question.meaning(message, id))?;
            Some((at, meaning?))
        });
        let learned = if let Some((at, meaning)) = found {
            let Waiting { question, .. } = waiting.remove(at);
            self.metrics.query(Transport::Wire, Outcome::Answered);
            let name = question.name().filter(|_| meaning == Meaning::Answer);
            name.map(|name| (name.clone(), given(message)))
        } else {
            self.metrics.stray();
            // With enough tries somebody's guess is right.
            waiting.retain_mut(|waiting| {
                waiting.guesses = waiting.guesses.saturating_add(1);
                waiting.guesses < MAX_GUESSES
            });
            None
        };
        if waiting.is_empty() {
            self.asked.remove(&ends);
        }
        learned
    }

    /// Forgets questions that nobody answered in time.
    fn forget(&mut self, now: Duration) {
        while let Some((since, _)) = self.order.front()
            && now.saturating_sub(*since) >= PATIENCE
        {
            self.forget_first(Outcome::Unanswered);
        }
    }

    /// Forgets the oldest question, if it is still there.
    fn forget_first(&mut self, outcome: Outcome) {
        let Some((since, ends)) = self.order.pop_front() else { return };
        let Some(waiting) = self.asked.get_mut(&ends) else { return };
        if let Some(at) = waiting.iter().position(|waiting| waiting.since == since) {
            waiting.remove(at);
            self.metrics.query(Transport::Wire, outcome);
        }
        if waiting.is_empty() {
            self.asked.remove(&ends);
        }
    }
}
