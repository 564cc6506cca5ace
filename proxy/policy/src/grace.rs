//! Peers whose policy may not have arrived yet are let through for a limited time.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use outrider_model::{Decision, DecisionCause, Direction, Mode, PolicyAction, RuleId};

use crate::{Query, Snapshot, SpecialKind};

/// Pairs of addresses that are remembered; a pair beyond them gets no grace.
pub const MAX_GRACE_PAIRS: usize = 4_096;

/// How long a window lasts, in seconds.
const WINDOW: u64 = 60;

/// How long a pair is remembered after it was last seen, in seconds.
const FORGET_AFTER: u64 = 600;

/// The pairs of addresses that are, or were, let through because one side is unknown. Bounded: when
/// it is full, the true action applies and is counted.
#[derive(Debug, Default)]
pub struct Grace {
    windows: HashMap<(IpAddr, IpAddr), Window>,
    swept: u64,
    refused: u64,
}

#[derive(Debug)]
struct Window {
    started: u64,
    seen: u64,
    version: u64,
    renewals: u32,
}

impl Grace {
    /// Lets a flow through that only the default action stops, if its peer (or, for external, node
    /// and tunnel peers, the workload itself) is not known to have policy.
    pub fn judge(
        &mut self,
        decision: Decision,
        query: &Query<'_>,
        snapshot: &Snapshot,
        now_secs: u64,
    ) -> Decision {
        let is_implicit = decision.cause == DecisionCause::Default && decision.action.violates();
        if !is_implicit || !snapshot.gives_grace() {
            return decision;
        }
        let granted = match case(query, snapshot) {
            Case::Always => true,
            Case::Never => false,
            Case::Renewals(budget) => {
                self.window_is_open(pair(query, snapshot), budget, snapshot.version(), now_secs)
            }
        };
        if granted {
            Decision {
                action: PolicyAction::Open,
                rule: RuleId::IMPLICIT,
                cause: DecisionCause::Grace,
            }
        } else {
            decision
        }
    }

    /// Flows that got no grace because the table was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn window_is_open(
        &mut self,
        pair: (IpAddr, IpAddr),
        budget: u32,
        version: u64,
        now: u64,
    ) -> bool {
        let expired = |window: &Window| now.saturating_sub(window.seen) >= FORGET_AFTER;
        if let Some(window) = self
            .windows
            .get_mut(&pair)
            .filter(|window| !expired(window))
        {
            window.seen = now;
            let lasts = now.saturating_sub(window.started) < WINDOW;
            if lasts && window.version == version {
                return true;
            }
            if window.renewals >= budget {
                return false;
            }
            window.renewals += 1;
            window.started = now;
            window.version = version;
            return true;
        }
        if self.windows.len() >= MAX_GRACE_PAIRS && now > self.swept {
            self.swept = now;
            self.windows.retain(|_, window| !expired(window));
        }
        if self.windows.len() >= MAX_GRACE_PAIRS && !self.windows.contains_key(&pair) {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.windows
            .insert(pair, Window { started: now, seen: now, version, renewals: 0 });
        true
    }
}

enum Case {
    Always,
    Never,
    Renewals(u32),
}

fn case(query: &Query<'_>, snapshot: &Snapshot) -> Case {
    let (peer, local) = (query.peer(), query.local());
    let (tested, budget) = match snapshot.special(peer) {
        Some(SpecialKind::Device) => return Case::Always,
        Some(SpecialKind::Host | SpecialKind::Tunnel) => (local, 3),
        Some(_) => return Case::Never,
        None if !snapshot.is_internal(peer) => (local, 2),
        None if snapshot.is_strict() && query.mode != Mode::Discover => return Case::Never,
        None => (peer, 10),
    };
    if snapshot.has_policy(tested) { Case::Never } else { Case::Renewals(budget) }
}

/// Client and server; all external peers are one.
fn pair(query: &Query<'_>, snapshot: &Snapshot) -> (IpAddr, IpAddr) {
    let external = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let peer = query.peer();
    let peer = if snapshot.is_internal(peer) { peer } else { external };
    match query.direction {
        Direction::Inbound => (peer, query.local()),
        Direction::Outbound => (query.local(), peer),
    }
}

#[cfg(test)]
mod tests;
