//! What the rules of one workload are, before they are compiled.

use std::net::IpAddr;

use outrider_model::{AppId, Direction, IpProto, PolicyAction, RuleId};

use crate::Name;

/// Rules that one policy may have.
pub const MAX_RULES: usize = 250_000;

/// Applications that one rule may list.
pub const MAX_APPS: usize = 1_024;

/// Which addresses a rule means.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AddrSpec {
    /// Any peer outside the internal subnets.
    External,
    /// Both ends included, one family.
    Range(IpAddr, IpAddr),
    /// Every address of both families.
    Any,
}

impl AddrSpec {
    /// One address.
    #[must_use]
    pub fn one(address: IpAddr) -> Self {
        Self::Range(address, address)
    }

    /// Whether it means exactly one address.
    #[must_use]
    pub fn is_one(self) -> bool {
        matches!(self, Self::Range(low, high) if low == high)
    }
}

/// What a rule says of one application.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AppRule {
    /// [`AppId::ANY`], [`AppId::UNIDENTIFIED`] or an application.
    pub app: AppId,
    /// What happens to it.
    pub action: PolicyAction,
    /// The rule that is reported.
    pub rule: RuleId,
}

/// One rule; in a list the first that matches wins.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RuleSpec {
    /// What is reported; 0 is reserved for implicit decisions.
    pub id: RuleId,
    /// Who opens the flow.
    pub client: AddrSpec,
    /// Where it goes.
    pub server: AddrSpec,
    /// Server ports, both ends included.
    pub ports: (u16, u16),
    /// `None`: TCP and UDP, and ICMP where ICMP is judged (the wire's 0).
    pub proto: Option<IpProto>,
    /// What happens; [`PolicyAction::CheckApp`] asks `apps`.
    pub action: PolicyAction,
    /// Relative to the workload.
    pub direction: Direction,
    /// The peer by name, in place of its address; one address given for the peer is added to those
    /// of the name.
    pub fqdn: Option<Name>,
    /// The name must also be the flow's HTTP host or TLS server name.
    pub vhost: bool,
    /// In order, for [`PolicyAction::CheckApp`] only; an application that is not listed meets the
    /// rules that follow.
    pub apps: Vec<AppRule>,
}

/// The rules of one workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicySpec {
    /// For what no rule matches.
    pub default_action: PolicyAction,
    /// Inbound flows of internal peers are judged here.
    pub inbound: bool,
    /// Outbound flows to internal peers are judged here.
    pub outbound: bool,
    /// In order: the first that matches wins.
    pub rules: Vec<RuleSpec>,
    /// Peers whose policy may not have arrived are let through for a limited time.
    pub grace: bool,
}
