//! What should be in force, from what was configured.

use std::sync::Arc;

use outrider_model::{MacAddr, Mode, PolicyAction};
use outrider_policy::{Network, PolicySpec};
use outrider_wire::request::Policy;

use super::State;
use crate::ctrl::policy::{self, Refused};

/// Which policy governs a workload.
#[derive(Clone, Debug, Default)]
pub(crate) enum Law {
    /// Nobody has delivered one: the default mode decides.
    #[default]
    Default,
    /// The agent has taken it away: everything is open.
    Open,
    /// The agent's.
    Rules(Arc<Policy>),
}

/// Everything that a snapshot is made of.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The policy.
    pub law: Law,
    /// What addresses mean.
    pub network: Arc<Network>,
    /// How far policy may go.
    pub mode: Mode,
    /// The mode that decides where no policy does.
    pub default_mode: Mode,
    /// Whether somebody governs the workload.
    pub managed: bool,
    /// Whether the workload is cut off.
    pub quarantined: bool,
}

impl Desired {
    /// The policy in the engine's words; `None` if everything is open. Takes a while for many rules.
    pub(crate) fn spec(&self) -> Result<Option<PolicySpec>, Refused> {
        match &self.law {
            Law::Default => Ok(Some(policy::default_spec(self.default_mode))),
            Law::Open => Ok(None),
            Law::Rules(policy) => policy::spec(policy).map(|(spec, _idle)| Some(spec)),
        }
    }
}

impl State {
    /// What should be in force now.
    #[must_use]
    pub(crate) fn desired(&self) -> Desired {
        let endpoint = self.endpoints.governing().map(|(_, endpoint)| endpoint);
        let law = endpoint.map_or(Law::Default, |endpoint| endpoint.law.clone());
        let tap = endpoint.and_then(|endpoint| endpoint.tap);
        let default_mode = self.default_mode.unwrap_or_default();
        let boundary = endpoint.is_some_and(|endpoint| endpoint.boundary);
        let mut network = Arc::clone(&self.network);
        if network.boundary != boundary {
            Arc::make_mut(&mut network).boundary = boundary;
        }
        Desired {
            mode: mode(&law, tap, default_mode),
            law,
            network,
            default_mode,
            managed: endpoint.is_some() || self.default_mode.is_some(),
            quarantined: self.endpoints.quarantined(),
        }
    }

    /// What addresses mean.
    #[must_use]
    pub(crate) fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The MAC that reports carry.
    #[must_use]
    pub(crate) fn epmac(&self) -> MacAddr {
        self.endpoints.epmac()
    }

    /// Whether reports go out: an agent governs the workload and wants them, or the environment
    /// does.
    #[must_use]
    pub(crate) fn reports(&self) -> bool {
        let governed = self.endpoints.governing().is_some() || self.default_mode.is_some();
        governed && self.endpoints.observed()
    }

    /// Whether a policy was delivered, now or in an earlier life.
    #[must_use]
    pub(crate) fn has_policy(&self) -> bool {
        let endpoint = self.endpoints.governing();
        endpoint.is_some_and(|(_, endpoint)| !matches!(endpoint.law, Law::Default))
    }

    /// What kind of policy came into force last, now or in an earlier life.
    #[must_use]
    pub(crate) fn policy_kind(&self) -> &'static str {
        match self
            .endpoints
            .governing()
            .map(|(_, endpoint)| &endpoint.good)
        {
            None | Some(Law::Default) => "default",
            Some(Law::Open) => "open",
            Some(Law::Rules(_)) => "rules",
        }
    }

    /// A chunk was lost or could not be read: nothing that it may have been part of takes effect.
    /// Says whether a policy was on its way.
    pub(crate) fn chunk_lost(&mut self) -> bool {
        self.internal.abandon();
        self.policy_addrs.abandon();
        self.special.abandon();
        self.policies.abandon()
    }

    /// The pod's interfaces, read again.
    pub(crate) fn set_own(&mut self, own: &[MacAddr]) {
        self.endpoints.set_own(own);
    }

    /// A policy came into force.
    pub(crate) fn accepted(&mut self, law: &Law) {
        self.endpoints.accepted(law);
    }

    /// A policy was refused: the last good one is wanted again.
    pub(crate) fn refused(&mut self, law: &Law) {
        self.endpoints.refused(law);
    }
}

/// The mode that tap flag and default action come to. To enforce is never a guess: the agent, or
/// the environment for as long as no agent has spoken, must have said so.
fn mode(law: &Law, tap: Option<bool>, default_mode: Mode) -> Mode {
    if tap == Some(false) {
        return Mode::Protect;
    }
    let by_default = match law {
        Law::Default => default_mode,
        Law::Open => Mode::Discover,
        Law::Rules(policy) => match policy.default_action.known() {
            Some(PolicyAction::Violate | PolicyAction::Deny) => Mode::Monitor,
            _ => Mode::Discover,
        },
    };
    match tap {
        Some(_) => by_default.min(Mode::Monitor),
        None => by_default,
    }
}
