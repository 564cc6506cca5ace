//! Why something is refused.

/// Why something is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LearnError {
    /// More workloads than [`MAX_WORKLOADS`].
    #[error("more workloads than a node may have")]
    TooManyWorkloads,
    /// More workloads of other nodes than [`MAX_REMOTE`].
    #[error("more workloads of other nodes than a node may know")]
    TooManyRemote,
    /// More addresses than [`MAX_ADDRESSES`].
    #[error("more addresses than a workload may have")]
    TooManyAddresses,
    /// No workload has that uid.
    #[error("no such workload")]
    UnknownWorkload,
    /// More sets than [`crate::MAX_SETS`].
    #[error("more sets than a node may know")]
    TooManySets,
    /// More members in all sets than [`crate::MAX_MEMBERS`].
    #[error("more members of sets than a node may know")]
    TooManyMembers,
    /// A set has more networks or names than [`crate::MAX_SET_PARTS`].
    #[error("more networks or names than a set may have")]
    TooManyParts,
    /// More rules of policy than [`crate::MAX_POLICY_RULES`].
    #[error("more rules of policy than a node may have")]
    TooManyRules,
    /// A rule has more ports or applications than [`crate::MAX_RULE_PARTS`].
    #[error("more ports or applications than a rule may have")]
    TooManyRuleParts,
    /// A rule's first port is above its last, its number is one of those learned here, or a name is longer than
    /// [`crate::MAX_TEXT`].
    #[error("the rule or the set makes no sense")]
    Senseless,
    /// More Services than [`crate::MAX_SERVICES`], or more addresses and ports of them than [`crate::MAX_DOORS`].
    #[error("more Services than a node may know")]
    TooManyServices,
    /// More backends of all Services than [`crate::MAX_BACKENDS`].
    #[error("more backends of Services than a node may know")]
    TooManyBackends,
    /// A Service has more ports or addresses than [`crate::MAX_SERVICE_PARTS`].
    #[error("more ports or addresses than a Service may have")]
    TooManyServiceParts,
    /// Client and server have no address of the same family.
    #[error("client and server have no address family in common")]
    NoCommonFamily,
}

impl LearnError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooManyWorkloads => "too-many-workloads",
            Self::TooManyRemote => "too-many-remote-workloads",
            Self::TooManyAddresses => "too-many-addresses",
            Self::UnknownWorkload => "unknown-workload",
            Self::TooManySets => "too-many-sets",
            Self::TooManyMembers => "too-many-members",
            Self::TooManyParts => "too-many-parts",
            Self::TooManyRules => "too-many-rules",
            Self::TooManyRuleParts => "too-many-rule-parts",
            Self::Senseless => "senseless",
            Self::TooManyServices => "too-many-services",
            Self::TooManyBackends => "too-many-backends",
            Self::TooManyServiceParts => "too-many-service-parts",
            Self::NoCommonFamily => "no-common-family",
        }
    }
}
