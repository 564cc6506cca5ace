//! What became of the flows that were seen, if people had said something else.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use outrider_model::{AppId, Decision, Direction, Mode, Verdict};
use outrider_policy::{AppKnowledge, Name, NameTable, Network, Query, Snapshot};

use crate::{
    ClusterChange, Conversation, Endpoint, Group, LearnError, Learner, Workload, reach::Reaches,
};

/// An address outside, where none is known: nobody has it (RFC 5737, RFC 3849).
const SOMEBODY: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
);

/// What else is supposed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Supposed {
    /// Nothing was learned: what people say is all there is.
    pub alone: bool,
    /// Every workload of this node is in that mode.
    pub mode: Option<Mode>,
}

/// A conversation that the other policy treats otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed<'a> {
    /// Which.
    pub conversation: &'a Conversation,
    /// What happens to it now.
    pub before: Verdict,
    /// What would happen to it.
    pub after: Verdict,
    /// What people call the workload that would say so.
    pub at: String,
    /// What its policy would say.
    pub decision: Decision,
    /// What people call the rule; empty for the default.
    pub rule: String,
}

/// What became of all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay<'a> {
    /// Conversations that were judged.
    pub judged: usize,
    /// Those that could not be: no workload of this node is an end of it any more, or no address is known.
    pub unjudged: usize,
    /// Those that would be treated otherwise.
    pub changed: Vec<Replayed<'a>>,
}

impl Learner {
    /// The same node, had people said that and nothing else. It knows no conversations.
    ///
    /// # Errors
    ///
    /// When what they say exceeds a bound.
    pub fn under(
        &self,
        said: impl IntoIterator<Item = ClusterChange>,
        supposed: Supposed,
    ) -> Result<Self, LearnError> {
        let mut other = Self::new(self.settings);
        other.directory = self.directory.clone();
        other.modes = self.modes.clone();
        if !supposed.alone {
            other.rules = self.rules.clone();
            other.policy = self.policy.clone();
        }
        let written = other.policy.rules().filter(|rule| !rule.learned);
        let gone: Vec<_> = written
            .map(|rule| ClusterChange::RuleGone(rule.id))
            .collect();
        let locals: Vec<_> = other
            .directory
            .workloads()
            .map(|one| Arc::clone(&one.uid))
            .collect();
        let modeless = locals
            .iter()
            .map(|uid| ClusterChange::Mode(Arc::clone(uid), None));
        let forget: Vec<_> = gone.into_iter().chain(modeless).collect();
        for change in forget.into_iter().chain(said) {
            other.cluster(change)?;
        }
        for uid in locals.into_iter().filter(|_| supposed.mode.is_some()) {
            other.cluster(ClusterChange::Mode(uid, supposed.mode))?;
        }
        Ok(other)
    }

    /// Judges every conversation by this policy and by the other one, as the proxies would.
    #[must_use]
    pub fn replay<'a>(&'a self, other: &Self) -> Replay<'a> {
        let names = self.names_met();
        let (mut now, mut then) = (Judge::new(self, &names), Judge::new(other, &names));
        let mut replay = Replay::default();
        for conversation in self.conversations() {
            let flows = self.flows(conversation);
            let judged = now
                .judge(conversation, &flows)
                .zip(then.judge(conversation, &flows));
            let Some((before, after)) = judged else {
                replay.unjudged += 1;
                continue;
            };
            replay.judged += 1;
            if before.verdict != after.verdict {
                let rule = then.learner.rule_name(after.decision);
                replay.changed.push(Replayed {
                    conversation,
                    before: before.verdict,
                    after: after.verdict,
                    at: after.at,
                    decision: after.decision,
                    rule,
                });
            }
        }
        replay
    }

    /// Names outside that workloads were given addresses for, as far as flows went there.
    fn names_met(&self) -> NameTable {
        let mut names = NameTable::default();
        for conversation in self.conversations() {
            let Endpoint::Named(name) = &conversation.key.server else { continue };
            let Ok(name) = Name::new(name) else { continue };
            for sample in &conversation.samples {
                // A name with more addresses than a proxy may know has them there neither.
                drop(names.add(&name, sample.server.ip()));
            }
        }
        names
    }

    /// Addresses of a conversation's flows: those of its examples, else some that its ends have. Examples of what went
    /// through a Service have its address, and the conversation has the port behind it: those are not judged.
    fn flows(&self, conversation: &Conversation) -> Vec<(IpAddr, IpAddr)> {
        if let Endpoint::Service(_) = conversation.key.server {
            return Vec::new();
        }
        let samples = conversation.samples.iter();
        let samples: Vec<_> = samples
            .map(|flow| (flow.client.ip().to_canonical(), flow.server.ip().to_canonical()))
            .collect();
        if !samples.is_empty() {
            return samples;
        }
        let (clients, servers) = (
            self.some_addresses(&conversation.key.client),
            self.some_addresses(&conversation.key.server),
        );
        let same = |client: &IpAddr| {
            let server = servers
                .iter()
                .find(|server| server.is_ipv4() == client.is_ipv4())?;
            Some((*client, *server))
        };
        clients.iter().filter_map(same).take(1).collect()
    }

    fn some_addresses(&self, end: &Endpoint) -> Vec<IpAddr> {
        match end {
            Endpoint::Workload(uid) => {
                let entry = self.directory.entry(uid).into_iter();
                let own = entry.flat_map(|entry| &entry.workload.addresses);
                own.map(IpAddr::to_canonical).collect()
            }
            Endpoint::Host(address) | Endpoint::Unmanaged(address) => vec![*address],
            Endpoint::External => {
                let all = [SOMEBODY.0, SOMEBODY.1].into_iter();
                all.filter(|one| self.directory.endpoint(*one) == Endpoint::External)
                    .collect()
            }
            Endpoint::Ingress => self.directory.tunnels().collect(),
            Endpoint::Addresses(_) | Endpoint::Named(_) | Endpoint::Service(_) => Vec::new(),
        }
    }

    fn rule_name(&self, decision: Decision) -> String {
        let said = self
            .policy
            .rule(decision.rule)
            .map(|rule| rule.origin.to_string());
        let learned = || {
            self.rules
                .by_id(decision.rule)
                .map(|rule| format!("learned rule {}", rule.id))
        };
        said.or_else(learned).unwrap_or_default()
    }
}

/// What one end says.
struct Said {
    verdict: Verdict,
    at: String,
    decision: Decision,
}

/// Judges by one learner's policy; what is compiled for one workload serves all that have the same.
struct Judge<'a> {
    learner: &'a Learner,
    network: Network,
    reaches: Reaches,
    compiled: HashMap<(Group, Mode, Vec<Group>), Option<Arc<Snapshot>>>,
}

impl<'a> Judge<'a> {
    fn new(learner: &'a Learner, names: &NameTable) -> Self {
        let network = Network {
            internal: learner.directory.internal().to_vec(),
            names: names.clone(),
            ..Network::default()
        };
        Self { learner, network, reaches: Reaches::new(), compiled: HashMap::new() }
    }

    /// What becomes of a conversation at its strictest end and flow; `None` if nobody here can say.
    fn judge(&mut self, conversation: &Conversation, flows: &[(IpAddr, IpAddr)]) -> Option<Said> {
        let key = &conversation.key;
        let ends = [(&key.client, Direction::Outbound), (&key.server, Direction::Inbound)];
        let mut strictest: Option<Said> = None;
        for (end, direction) in ends {
            let Endpoint::Workload(uid) = end else { continue };
            let Some(workload) = self.learner.directory.get(uid) else { continue };
            let (mode, snapshot) = (self.learner.mode_of(workload), self.snapshot(workload)?);
            for (client, server) in flows {
                let query = Query {
                    client: *client,
                    server: *server,
                    port: key.port,
                    proto: key.proto,
                    direction,
                    app: knowledge(key.app),
                    host: conversation.names.first().map(AsRef::as_ref),
                    mode,
                };
                let decision = snapshot.decide(&query);
                let verdict = decision.verdict(mode);
                if strictest
                    .as_ref()
                    .is_none_or(|known| known.verdict < verdict)
                {
                    strictest = Some(Said { verdict, at: workload.name.clone(), decision });
                }
            }
        }
        strictest
    }

    /// `None` for a policy that a proxy would refuse: nobody can say then what it would do.
    fn snapshot(&mut self, workload: &Workload) -> Option<Arc<Snapshot>> {
        let (mode, sets) = self.learner.kin(workload);
        let key = (workload.group(), mode, sets);
        if let Some(known) = self.compiled.get(&key) {
            return known.clone();
        }
        let policy = self.learner.policy_of(workload, &mut self.reaches);
        let snapshot = Snapshot::compile(Some(&policy.spec), &self.network)
            .ok()
            .map(Arc::new);
        self.compiled.insert(key, snapshot.clone());
        snapshot
    }
}

fn knowledge(app: AppId) -> AppKnowledge {
    match app {
        AppId::NOT_CHECKED => AppKnowledge::Pending,
        AppId::UNKNOWN => AppKnowledge::Unidentified,
        app => AppKnowledge::Known(app),
    }
}

#[cfg(test)]
mod tests;
