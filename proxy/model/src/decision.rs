//! What a rule says, what happens to bytes, and how far a mode lets it go.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Identifier of a rule; 0 is the implicit one (default action).
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct RuleId(pub u32);

impl RuleId {
    /// No rule matched: the default action decided.
    pub const IMPLICIT: Self = Self(0);
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule or a default says: NeuVector's action lattice, in its numeric order.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum PolicyAction {
    /// Not subject to policy: allowed, not learned.
    #[default]
    Open = 0,
    /// Allowed; learn it.
    Learn = 1,
    /// Allowed by a rule.
    Allow = 2,
    /// Undecided until the virtual host is known.
    CheckVhost = 3,
    /// Allowed, unless it crosses a namespace boundary that is enforced.
    CheckBoundary = 4,
    /// Undecided until the application is known.
    CheckApp = 5,
    /// Allowed and reported.
    Violate = 6,
    /// Stopped where the mode allows it, and reported.
    Deny = 7,
}

impl PolicyAction {
    /// Reads the wire's number.
    #[must_use]
    pub fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Open,
            1 => Self::Learn,
            2 => Self::Allow,
            3 => Self::CheckVhost,
            4 => Self::CheckBoundary,
            5 => Self::CheckApp,
            6 => Self::Violate,
            7 => Self::Deny,
            _ => return None,
        })
    }

    /// The wire's number.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }

    /// Whether traffic under this action counts as a violation.
    #[must_use]
    pub fn violates(self) -> bool {
        self >= Self::Violate
    }

    /// Whether more knowledge (application, virtual host) may change the outcome.
    #[must_use]
    pub fn undecided(self) -> bool {
        matches!(self, Self::CheckApp | Self::CheckVhost)
    }

    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Learn => "learn",
            Self::Allow => "allow",
            Self::CheckVhost => "check-vhost",
            Self::CheckBoundary => "check-boundary",
            Self::CheckApp => "check-app",
            Self::Violate => "violate",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for PolicyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What happens to a flow's bytes, least first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// They pass.
    #[default]
    Allow,
    /// They pass and are reported.
    Alert,
    /// They stop.
    Deny,
}

impl Verdict {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Alert => "alert",
            Self::Deny => "deny",
        }
    }
}

/// How far policy may go for a workload.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Learn, block nothing.
    #[default]
    Discover,
    /// Report violations, block nothing.
    Monitor,
    /// Block violations.
    Protect,
}

impl Mode {
    /// Caps a verdict: only `Protect` may stop traffic.
    #[must_use]
    pub fn cap(self, verdict: Verdict) -> Verdict {
        match self {
            Self::Discover => Verdict::Allow,
            Self::Monitor => verdict.min(Verdict::Alert),
            Self::Protect => verdict,
        }
    }

    /// The action for traffic that no rule names.
    #[must_use]
    pub fn default_action(self) -> PolicyAction {
        match self {
            Self::Discover => PolicyAction::Learn,
            Self::Monitor => PolicyAction::Violate,
            Self::Protect => PolicyAction::Deny,
        }
    }

    /// The name people type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Monitor => "monitor",
            Self::Protect => "protect",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParseModeError;

impl fmt::Display for ParseModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mode is one of discover, monitor, protect")
    }
}

impl std::error::Error for ParseModeError {}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, ParseModeError> {
        [Self::Discover, Self::Monitor, Self::Protect]
            .into_iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(text))
            .ok_or(ParseModeError)
    }
}

/// Why a decision came out as it did, beyond rule and action.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum DecisionCause {
    /// A rule matched.
    Rule,
    /// No rule matched: the workload's default action.
    Default,
    /// No policy is loaded, or policy is switched off.
    #[default]
    NoPolicy,
    /// An address is link-local.
    LinkLocal,
    /// The peer is internal and this direction is judged at the other end.
    OtherEnd,
    /// The peer is an unmanaged workload, and those are not judged.
    Unmanaged,
    /// The peer is a service's external address (threat 2026).
    ServiceExternalIp,
    /// The peer's policy may not have arrived yet: let through for a limited time.
    Grace,
    /// The flow crosses an enforced namespace boundary.
    Boundary,
    /// The workload is quarantined.
    Quarantine,
    /// A detector stopped the flow.
    Threat,
}

/// Verdict, rule and cause.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Decision {
    /// What the rule or default says.
    pub action: PolicyAction,
    /// Which rule decided; 0 for the default.
    pub rule: RuleId,
    /// Why.
    pub cause: DecisionCause,
}

impl Decision {
    /// What happens to the bytes in a mode. What is undecided passes: whoever must not let it pass
    /// holds it until it is decided. Quarantine is an order, not a policy: no mode softens it.
    #[must_use]
    pub fn verdict(self, mode: Mode) -> Verdict {
        if self.cause == DecisionCause::Quarantine && self.action == PolicyAction::Deny {
            return Verdict::Deny;
        }
        let wanted = match self.action {
            PolicyAction::Violate => Verdict::Alert,
            PolicyAction::Deny => Verdict::Deny,
            _ => Verdict::Allow,
        };
        mode.cap(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protect_stops_traffic() {
        let denied = Decision { action: PolicyAction::Deny, ..Decision::default() };
        assert_eq!(denied.verdict(Mode::Discover), Verdict::Allow);
        assert_eq!(denied.verdict(Mode::Monitor), Verdict::Alert);
        assert_eq!(denied.verdict(Mode::Protect), Verdict::Deny);
    }

    #[test]
    fn no_mode_softens_a_quarantine() {
        let cause = DecisionCause::Quarantine;
        let denied = Decision { action: PolicyAction::Deny, cause, ..Decision::default() };
        assert_eq!(denied.verdict(Mode::Discover), Verdict::Deny);
    }

    #[test]
    fn actions_round_trip_and_keep_the_lattice_order() {
        let all: Vec<_> = (0..=u8::MAX).filter_map(PolicyAction::from_wire).collect();
        assert_eq!(all.len(), 8);
        assert!(all.is_sorted());
        assert!(all.iter().all(|a| a.violates() == (a.to_wire() > 5)));
    }

    #[test]
    fn reads_modes_by_name() {
        assert_eq!("Protect".parse(), Ok(Mode::Protect));
        assert_eq!("block".parse::<Mode>(), Err(ParseModeError));
    }
}
