//! Why a policy is refused.

use std::net::IpAddr;

use outrider_model::{PolicyAction, RuleId};

/// Why a policy, or a part of it, is refused. A policy with one mistake is refused whole.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// More rules than [`crate::MAX_RULES`].
    #[error("{0} rules are more than a policy may have")]
    TooManyRules(usize),
    /// More applications in one rule than [`crate::MAX_APPS`].
    #[error("rule {0} lists more applications than a rule may")]
    TooManyApps(RuleId),
    /// An address range whose ends are swapped or of two families.
    #[error("rule {rule}: {low} to {high} is no address range")]
    AddressRange {
        /// The rule.
        rule: RuleId,
        /// Its low end.
        low: IpAddr,
        /// Its high end.
        high: IpAddr,
    },
    /// A client range of one family with a server range of the other.
    #[error("rule {0}: client and server are of two address families")]
    MixedFamilies(RuleId),
    /// A port range whose ends are swapped.
    #[error("rule {rule}: {low} to {high} is no port range")]
    PortRange {
        /// The rule.
        rule: RuleId,
        /// Its low end.
        low: u16,
        /// Its high end.
        high: u16,
    },
    /// The workload's own side is given as "external", which only a peer can be.
    #[error("rule {0}: only the peer can be external")]
    ExternalWorkload(RuleId),
    /// A rule by name that also gives a range of peers.
    #[error("rule {0}: a name and a range of addresses")]
    NameAndRange(RuleId),
    /// An action that cannot stand where it stands.
    #[error("rule {rule}: the action {action} cannot stand there")]
    Action {
        /// The rule; 0 for the default action.
        rule: RuleId,
        /// The action.
        action: PolicyAction,
    },
    /// Text that is no host name or wildcard, or is too long.
    #[error("not a host name: {0:?}")]
    Name(String),
    /// More names than [`crate::MAX_NAMES`].
    #[error("more names than a proxy may know")]
    TooManyNames,
    /// More addresses for one name than [`crate::MAX_NAME_ADDRESSES`].
    #[error("more addresses than a name may have")]
    TooManyAddresses,
}

impl PolicyError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooManyRules(_) => "too-many-rules",
            Self::TooManyApps(_) => "too-many-apps",
            Self::AddressRange { .. } => "address-range",
            Self::MixedFamilies(_) => "mixed-families",
            Self::PortRange { .. } => "port-range",
            Self::ExternalWorkload(_) => "external-workload",
            Self::NameAndRange(_) => "name-and-range",
            Self::Action { .. } => "action",
            Self::Name(_) => "name",
            Self::TooManyNames => "too-many-names",
            Self::TooManyAddresses => "too-many-addresses",
        }
    }
}
