//! From what is wanted to what is in force: compile, swap whole, judge live flows again.

use outrider_policy::Snapshot;
use outrider_relay::{PolicyView, Relay};

use super::{
    policy::Refused,
    state::{Desired, Law},
};
use crate::dns::Names;

/// What became of a wanted policy.
#[derive(Debug)]
pub(crate) struct Swap {
    /// The policy that was wanted.
    pub law: Law,
    /// What came of it.
    pub result: Result<Swapped, Refused>,
}

/// A snapshot came into force.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Swapped {
    /// Its number.
    pub version: u64,
    /// Its rules: exact, range.
    pub rules: (u32, u32),
    /// Live flows that were judged again.
    pub judged: usize,
    /// Those of them that were cut.
    pub cut: usize,
}

/// Compiles what is wanted.
pub(crate) fn compile(desired: &Desired, version: u64) -> Result<PolicyView, Refused> {
    let spec = desired.spec()?;
    let snapshot = Snapshot::compile(spec.as_ref(), &desired.network)?.with_version(version);
    Ok(PolicyView {
        snapshot,
        mode: desired.mode,
        managed: desired.managed,
        quarantined: desired.quarantined,
        version,
    })
}

/// Compiles what is wanted and puts it in force; takes a while.
#[must_use]
pub(crate) fn swap(desired: Desired, version: u64, names: &Names, relay: &Relay) -> Swap {
    let result = compile(&desired, version).map(|view| {
        let rules = view.snapshot.rule_counts();
        names.enforce(&view, desired.network.names.clone());
        let (judged, cut) = relay.rejudge();
        Swapped { version, rules, judged, cut }
    });
    Swap { law: desired.law, result }
}
