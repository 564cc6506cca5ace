//! How far identification got, how a flow ends, the names it carried.

use outrider_model::{AppId, Decision, PolicyAction};

/// Longest host or server name kept for a flow, in bytes (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 255;

/// How far identification got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Identification {
    /// More bytes are needed.
    #[default]
    Pending,
    /// It speaks this.
    Known(AppId),
    /// Nobody recognised it.
    Unidentified,
}

impl Identification {
    /// The application as connection rows carry it.
    #[must_use]
    pub fn app(self) -> AppId {
        match self {
            Self::Known(app) => app,
            Self::Pending | Self::Unidentified => AppId::UNKNOWN,
        }
    }
}

/// What the proxy can do about a flow.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Grip {
    /// Both of its connections are the proxy's own: it can be ended.
    #[default]
    Held,
    /// Its packets are seen, and those of a denied flow are stopped.
    Gated,
    /// Its packets are seen, and nothing can stop them.
    Seen,
}

impl Grip {
    /// What a decision comes to: a denial that nobody can carry out is a violation.
    #[must_use]
    pub fn soften(self, decision: Decision) -> Decision {
        match decision.action {
            PolicyAction::Deny if self == Self::Seen => {
                Decision { action: PolicyAction::Violate, ..decision }
            }
            _ => decision,
        }
    }
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// Both sides sent their end.
    Done,
    /// The client reset it.
    ResetByClient,
    /// The server reset it.
    ResetByServer,
    /// One of the two reset it.
    Reset,
    /// Nothing came for too long.
    TimedOut,
    /// The other end could not be dialled.
    DialFailed,
    /// Policy stopped it.
    Denied,
    /// A threat's action stopped it.
    Threat,
    /// It made room for another: too many lived.
    Evicted,
    /// It was cleared by request.
    Cleared,
    /// The proxy drained, or its task was dropped.
    Cut,
}

impl Outcome {
    /// All, for the closed label set.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::ResetByClient,
        Self::ResetByServer,
        Self::Reset,
        Self::TimedOut,
        Self::DialFailed,
        Self::Denied,
        Self::Threat,
        Self::Evicted,
        Self::Cleared,
        Self::Cut,
    ];

    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ResetByClient => "reset-by-client",
            Self::ResetByServer => "reset-by-server",
            Self::Reset => "reset",
            Self::TimedOut => "timed-out",
            Self::DialFailed => "dial-failed",
            Self::Denied => "denied",
            Self::Threat => "threat",
            Self::Evicted => "evicted",
            Self::Cleared => "cleared",
            Self::Cut => "cut",
        }
    }
}

/// Why somebody outside its task ends a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum CutReason {
    /// A new policy denies it, or the workload is quarantined.
    Policy = 1,
    /// A request cleared it.
    Clear = 2,
    /// The proxy's grace period is over.
    Drain = 3,
    /// It is part of a threat.
    Threat = 4,
}

impl CutReason {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Policy),
            2 => Some(Self::Clear),
            3 => Some(Self::Drain),
            4 => Some(Self::Threat),
            _ => None,
        }
    }

    /// How the flow's end is reported.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Policy => Outcome::Denied,
            Self::Clear => Outcome::Cleared,
            Self::Drain => Outcome::Cut,
            Self::Threat => Outcome::Threat,
        }
    }
}

/// Names the flow carried.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
    /// HTTP Host or `:authority`, lower case, without port.
    pub host: Option<Box<str>>,
    /// TLS server name, lower case.
    pub sni: Option<Box<str>>,
}

impl Names {
    /// The name that a virtual-host rule is matched with.
    #[must_use]
    pub fn vhost(&self) -> Option<&str> {
        self.host.as_deref().or(self.sni.as_deref())
    }
}
