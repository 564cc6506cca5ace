//! The immutable compiled form of policy, and what it answers.

use std::{net::IpAddr, sync::Arc};

use outrider_model::{
    AppId, Decision, DecisionCause, Direction, IpProto, Mode, PolicyAction, RuleId,
};

use crate::{
    AppKnowledge, Name, NameTable, Network, PolicyError, PolicySpec, Query, SpecialKind,
    addr_map::number,
    compile::{EXTERNAL, Outcome, PENDING, TableKey, Tables, name_point, proto_point},
    index::{NO_MATCH, Point},
    name::NameIndex,
    network::{NetworkIndex, is_link_local},
};

/// Policy in force, compiled and immutable; swapped whole.
#[derive(Clone, Debug)]
pub struct Snapshot {
    tables: Option<Arc<Tables>>,
    network: Arc<NetworkIndex>,
    names: NameIndex,
    version: u64,
}

impl Snapshot {
    /// Compiles policy; `None` stands for no policy yet, under which everything is open.
    pub fn compile(spec: Option<&PolicySpec>, network: &Network) -> Result<Self, PolicyError> {
        let tables = spec
            .map(|spec| Tables::compile(spec, network).map(Arc::new))
            .transpose()?;
        let names = tables
            .as_ref()
            .map(|tables| NameIndex::new(&tables.names, &tables.given, &network.names))
            .unwrap_or_default();
        Ok(Self { tables, network: Arc::new(NetworkIndex::new(network)), names, version: 0 })
    }

    /// The same policy under other knowledge of names; much cheaper than compiling it again.
    #[must_use]
    pub fn with_names(&self, table: &NameTable) -> Self {
        let names = self
            .tables
            .as_ref()
            .map(|tables| NameIndex::new(&tables.names, &tables.given, table))
            .unwrap_or_default();
        Self { names, ..self.clone() }
    }

    /// The names that rules are about, wildcards among them.
    #[must_use]
    pub fn rule_names(&self) -> &[Name] {
        self.tables.as_ref().map_or(&[], |tables| &tables.names)
    }

    /// Numbers the snapshot, so that [`crate::Grace`] sees that policy changed.
    #[must_use]
    pub fn with_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// How many rules name single addresses and one port, and how many do not.
    #[must_use]
    pub fn rule_counts(&self) -> (u32, u32) {
        self.tables
            .as_ref()
            .map_or((0, 0), |tables| (tables.exact, tables.ranges))
    }

    /// Judges a flow.
    #[must_use]
    pub fn decide(&self, query: &Query<'_>) -> Decision {
        let Some(tables) = self.tables.as_ref().filter(|_| !self.network.disabled) else {
            return open(DecisionCause::NoPolicy);
        };
        if is_link_local(query.client.to_canonical()) || is_link_local(query.server.to_canonical())
        {
            return open(DecisionCause::LinkLocal);
        }
        let settled = match query.direction {
            Direction::Inbound => self.settled_inbound(tables, query),
            Direction::Outbound => self.settled_outbound(tables, query),
        };
        settled.unwrap_or_else(|| self.match_rules(tables, query))
    }

    /// Whether a flow that is still undecided may yet be denied: only then its bytes must wait.
    #[must_use]
    pub fn may_deny(&self, query: &Query<'_>) -> bool {
        let denies = |query: &Query<'_>| self.decide(query).action == PolicyAction::Deny;
        if !self.decide(query).action.undecided() {
            return denies(query);
        }
        let Some(apps) = self
            .tables
            .as_ref()
            .and_then(|tables| tables.named_apps.as_deref())
        else {
            return true;
        };
        let unnamed = (PENDING + 1..).find(|id| !apps.contains(id)).map(AppId);
        let known: Vec<AppKnowledge> = match query.app {
            AppKnowledge::Pending => unnamed
                .into_iter()
                .chain(apps.iter().copied().map(AppId))
                .map(AppKnowledge::Known)
                .chain([AppKnowledge::Unidentified])
                .collect(),
            settled => vec![settled],
        };
        let hosts: Vec<String> = match query.host {
            Some(_) => Vec::new(),
            None => self.names.examples(query.peer()).collect(),
        };
        known.into_iter().any(|app| {
            let query = Query { app, ..*query };
            denies(&query)
                || hosts
                    .iter()
                    .any(|host| denies(&Query { host: Some(host), ..query }))
        })
    }

    /// Whether a workload's policy has been delivered.
    pub(crate) fn has_policy(&self, address: IpAddr) -> bool {
        self.network.has_policy(address)
    }

    pub(crate) fn is_internal(&self, address: IpAddr) -> bool {
        self.network.is_internal(address)
    }

    pub(crate) fn special(&self, address: IpAddr) -> Option<SpecialKind> {
        self.network.special(address)
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.network.strict
    }

    pub(crate) fn gives_grace(&self) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.grace)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Both ends are judged here whatever the direction policy applies to.
    fn judges_both_ends(&self, mode: Mode) -> bool {
        self.network.boundary || (self.network.strict && mode == Mode::Protect)
    }

    fn settled_inbound(&self, tables: &Tables, query: &Query<'_>) -> Option<Decision> {
        let peer = query.peer();
        let special = self.network.special(peer);
        if special == Some(SpecialKind::Unmanaged) {
            return (!self.network.detect_unmanaged).then_some(open(DecisionCause::Unmanaged));
        }
        let other_end =
            !tables.inbound && !self.judges_both_ends(query.mode) && self.network.is_internal(peer);
        other_end.then_some(open(DecisionCause::OtherEnd))
    }

    fn settled_outbound(&self, tables: &Tables, query: &Query<'_>) -> Option<Decision> {
        let peer = query.peer();
        let special = self.network.special(peer);
        let internal = self.network.is_internal(peer);
        if !internal && special == Some(SpecialKind::ServiceExternal) {
            return Some(service_external(query.mode));
        }
        if special == Some(SpecialKind::Unmanaged) {
            return (!self.network.detect_unmanaged).then_some(open(DecisionCause::Unmanaged));
        }
        let is_passing = internal
            && tables.outbound
            && !tables.inbound
            && !self.network.is_internal(query.local());
        let is_service = self.network.boundary && special == Some(SpecialKind::Service);
        let other_end = internal
            && !tables.outbound
            && !self.judges_both_ends(query.mode)
            && special != Some(SpecialKind::Host)
            && self.names.of(peer).is_empty();
        (is_passing || is_service || other_end).then_some(open(DecisionCause::OtherEnd))
    }

    fn match_rules(&self, tables: &Tables, query: &Query<'_>) -> Decision {
        let best = self.first_match(tables, query);
        let Some(outcome) = tables.outcomes.get(best as usize) else {
            return implicit(tables, query, &self.network);
        };
        let cause = match outcome.rule {
            RuleId::IMPLICIT => DecisionCause::Default,
            _ => DecisionCause::Rule,
        };
        let action = match outcome.action {
            PolicyAction::CheckApp => PolicyAction::CheckApp,
            _ if self.waits_for_host(outcome, query) => PolicyAction::CheckVhost,
            PolicyAction::CheckBoundary if self.network.boundary => {
                let action = violation(query.mode);
                return Decision { action, rule: RuleId::IMPLICIT, cause: DecisionCause::Boundary };
            }
            PolicyAction::CheckBoundary => PolicyAction::Allow,
            action => action,
        };
        Decision { action, rule: outcome.rule, cause }
    }

    /// The place of the first rule that matches under any view of the peer: its address, "external",
    /// each of its names.
    fn first_match(&self, tables: &Tables, query: &Query<'_>) -> u32 {
        let (peer, local) = (query.peer(), query.local());
        let mut key = TableKey {
            inbound: query.direction == Direction::Inbound,
            v4: peer.is_ipv4(),
            special: false,
        };
        let mut point = Point {
            peer: number(peer),
            local: number(local),
            port: if query.is_icmp() { 0 } else { query.port },
            app: query.app_point(),
            proto: proto_point(query.proto),
        };
        let mut best = NO_MATCH;
        if peer.is_ipv4() != local.is_ipv4() {
            return best;
        }
        if let Some(table) = tables.table(key) {
            best = table.search(&point, best, &|_| true);
        }
        key.special = true;
        if let Some(table) = tables.table(key) {
            if !self.network.is_internal(peer) {
                point.peer = EXTERNAL;
                best = table.search(&point, best, &|_| true);
            }
            for code in self.names.of(peer) {
                point.peer = name_point(*code);
                let accept = |at: u32| {
                    tables
                        .outcomes
                        .get(at as usize)
                        .is_some_and(|o| self.accepts_host(o, query))
                };
                best = table.search(&point, best, &accept);
            }
        }
        best
    }

    /// The name that the flow must carry, if there is one.
    fn required_name(&self, outcome: &Outcome) -> Option<u16> {
        outcome
            .name
            .filter(|code| outcome.vhost || self.names.needs_host(*code))
    }

    /// Whether a flow carries the name it must, or may yet turn out to.
    fn accepts_host(&self, outcome: &Outcome, query: &Query<'_>) -> bool {
        match (self.required_name(outcome), query.host) {
            (None, _) => true,
            (Some(code), Some(host)) => self.names.matches(code, host),
            (Some(_), None) => query.app == AppKnowledge::Pending,
        }
    }

    fn waits_for_host(&self, outcome: &Outcome, query: &Query<'_>) -> bool {
        query.host.is_none()
            && query.app == AppKnowledge::Pending
            && self.required_name(outcome).is_some()
    }
}

fn open(cause: DecisionCause) -> Decision {
    Decision { action: PolicyAction::Open, rule: RuleId::IMPLICIT, cause }
}

/// What a violation comes to in a mode where no rule says it.
fn violation(mode: Mode) -> PolicyAction {
    if mode == Mode::Protect { PolicyAction::Deny } else { PolicyAction::Violate }
}

fn service_external(mode: Mode) -> Decision {
    Decision {
        action: violation(mode),
        rule: RuleId::IMPLICIT,
        cause: DecisionCause::ServiceExternalIp,
    }
}

/// What no rule matches: the default for TCP and UDP, and for ICMP and the rest where they are judged. Where
/// they are not, ICMP is allowed, and protocols beyond it are open unless a rule names them.
fn implicit(tables: &Tables, query: &Query<'_>, network: &NetworkIndex) -> Decision {
    let action = match query.proto {
        IpProto::TCP | IpProto::UDP => tables.default_action,
        IpProto::ICMP | IpProto::ICMPV6 if network.icmp_policy => tables.default_action,
        IpProto::ICMP | IpProto::ICMPV6 => PolicyAction::Allow,
        _ if network.ip_policy => tables.default_action,
        _ => return open(DecisionCause::NoPolicy),
    };
    let action = match action {
        PolicyAction::CheckBoundary => PolicyAction::Allow,
        action => action,
    };
    Decision { action, rule: RuleId::IMPLICIT, cause: DecisionCause::Default }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
