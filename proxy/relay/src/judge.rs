//! What policy says of one flow, as far as the flow is known. No sockets, no tables.

use std::sync::Arc;

use arc_swap::Guard;
use outrider_model::{Decision, DecisionCause, FlowKey, Mode, PolicyAction, RuleId, Verdict};
use outrider_policy::{AppKnowledge, Grace, Query};
use outrider_telemetry::{Identification, unix_seconds};
use parking_lot::Mutex;

use crate::{PolicyHandle, PolicyView};

/// Policy in force and what it remembers between flows.
#[derive(Debug)]
pub struct Law {
    policy: PolicyHandle,
    grace: Mutex<Grace>,
}

impl Law {
    /// The policy to judge by, with nothing remembered.
    #[must_use]
    pub fn new(policy: PolicyHandle) -> Self {
        Self { policy, grace: Mutex::default() }
    }

    /// The policy in force.
    #[must_use]
    pub fn view(&self) -> Guard<Arc<PolicyView>> {
        self.policy.load()
    }

    /// Decides about a flow. Quarantine comes before everything; grace only where no rule spoke.
    #[must_use]
    pub fn decide(&self, view: &PolicyView, query: &Query<'_>) -> Decision {
        if view.quarantined {
            return Decision {
                action: PolicyAction::Deny,
                rule: RuleId::IMPLICIT,
                cause: DecisionCause::Quarantine,
            };
        }
        let decision = view.snapshot.decide(query);
        if decision.cause != DecisionCause::Default || !decision.action.violates() {
            return decision;
        }
        self.grace
            .lock()
            .judge(decision, query, &view.snapshot, unix_seconds())
    }
}

/// What policy is asked about a flow.
pub(crate) fn query<'a>(
    key: &FlowKey,
    app: AppKnowledge,
    host: Option<&'a str>,
    mode: Mode,
) -> Query<'a> {
    Query {
        client: key.client.ip(),
        server: key.server.ip(),
        port: key.server.port(),
        proto: key.proto,
        direction: key.direction,
        app,
        host,
        mode,
    }
}

/// The same knowledge in policy's words.
pub(crate) fn knowledge(identification: Identification) -> AppKnowledge {
    match identification {
        Identification::Pending => AppKnowledge::Pending,
        Identification::Known(app) => AppKnowledge::Known(app),
        Identification::Unidentified => AppKnowledge::Unidentified,
    }
}

/// One flow before its judge: what is known, what was decided.
#[derive(Debug)]
pub struct Judge {
    key: FlowKey,
    app: AppKnowledge,
    host: Option<Box<str>>,
    /// Nothing more will be known in time.
    exhausted: bool,
    decision: Decision,
    mode: Mode,
    version: u64,
    holds: bool,
}

impl Judge {
    /// Judges a flow of which only the addresses are known.
    #[must_use]
    pub fn open(key: FlowKey, law: &Law) -> Self {
        let mut judge = Self {
            key,
            app: AppKnowledge::Pending,
            host: None,
            exhausted: false,
            decision: Decision::default(),
            mode: Mode::default(),
            version: 0,
            holds: false,
        };
        judge.rule(law);
        judge
    }

    /// Judges again, with what is known now and the policy in force now.
    pub fn rule(&mut self, law: &Law) {
        let view = law.view();
        let query = query(&self.key, self.app, self.host.as_deref(), view.mode);
        let mut decision = law.decide(&view, &query);
        if self.exhausted && decision.action.undecided() {
            decision = Decision {
                action: view.mode.default_action(),
                rule: RuleId::IMPLICIT,
                cause: DecisionCause::Default,
            };
        }
        self.holds = view.mode == Mode::Protect
            && decision.action.undecided()
            && view.snapshot.may_deny(&query);
        self.decision = decision;
        self.mode = view.mode;
        self.version = view.version;
    }

    /// Whether the policy it ruled by is still in force.
    #[must_use]
    pub fn is_current(&self, law: &Law) -> bool {
        law.view().version == self.version
    }

    /// Identification said its last word.
    pub fn learn_app(&mut self, app: AppKnowledge) {
        self.app = app;
    }

    /// The HTTP host; the latest counts.
    pub fn learn_host(&mut self, host: Box<str>) {
        self.host = Some(host);
    }

    /// The TLS server name.
    pub fn learn_sni(&mut self, name: Box<str>) {
        self.host.get_or_insert(name);
    }

    /// Time or room to wait for more is used up: what is not identified now counts as unidentified.
    pub fn give_up(&mut self, law: &Law) {
        if self.app == AppKnowledge::Pending {
            self.app = AppKnowledge::Unidentified;
        }
        self.exhausted = true;
        self.rule(law);
    }

    /// Whether the application is still to be learned.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.app == AppKnowledge::Pending
    }

    /// Whether the client's bytes must wait: what will be known of the flow may yet deny it.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// What policy says, rule and cause included.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// The mode that it ruled in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What that comes to in the mode.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.decision.verdict(self.mode)
    }
}

#[cfg(test)]
mod tests;
