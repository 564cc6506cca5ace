//! The plan put into force: tools for the rules, netlink for address, route and flush.

mod iptables;
pub mod netlink;
mod nft;
mod state;
mod tool;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::InitError;
use crate::plan::Plan;
use crate::settings::{Backend, Settings};

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// One word for the run.
    pub done: &'static str,
    /// Tools that did it.
    pub tools: String,
    /// Whether anything is different from before.
    pub changed: bool,
    /// Things that someone should know.
    pub notes: Vec<String>,
    /// Time it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let changed = if self.changed { "changed" } else { "unchanged" };
        let took = self.took.as_secs_f64() * 1e3;
        writeln!(f, "{} by {}: {changed}, {took:.1} ms", self.done, self.tools)
    }
}

/// What one backend did.
struct Outcome {
    /// The tools.
    tools: String,
    /// Whether our rules are different from before.
    changed: bool,
}

/// Installs the plan, or replaces the one in force.
///
/// Order matters: what captured traffic needs (addresses, routes) is there before the rules; rules of the
/// other backend go after ours are in force; the flush comes last, so that no older flow goes on past them.
///
/// # Errors
/// If a tool is missing, or the tools or the kernel refuse. What was in force before stays in force.
pub fn apply(plan: &Plan, settings: &Settings) -> Result<Report, InitError> {
    let start = SystemTime::now();
    let mut notes = Vec::new();
    let change = Change::begin(plan)?;
    netlink::prepare(plan, &mut notes)?;
    let mut outcome = match settings.backend {
        Backend::Iptables => iptables::apply(plan, settings.variant)?,
        Backend::Nft => nft::apply(plan, &mut notes)?,
    };
    outcome.changed |= match settings.backend {
        Backend::Iptables => nft::remove()?,
        Backend::Nft => iptables::remove_if_any()?.changed,
    };
    netlink::retire(plan)?;
    change.end(outcome.changed, &mut notes)?;
    Ok(report("applied", outcome, start, notes))
}

/// Removes whatever any run with any settings installed.
///
/// # Errors
/// If the tools or the kernel refuse.
pub fn cleanup(plan: &Plan) -> Result<Report, InitError> {
    let start = SystemTime::now();
    let mut notes = Vec::new();
    let change = Change::begin(plan)?;
    let mut outcome = iptables::remove_if_any()?;
    if nft::remove()? {
        let also = if outcome.changed { format!(" and {}", outcome.tools) } else { String::new() };
        outcome = Outcome { tools: format!("nft{also}"), changed: true };
    }
    netlink::remove(plan)?;
    change.end(outcome.changed, &mut notes)?;
    Ok(report("cleaned up", outcome, start, notes))
}

/// A change of rules, which is over when conntrack has forgotten what was before.
struct Change<'a> {
    plan: &'a Plan,
    /// An earlier run was killed on its way.
    resumed: bool,
}

impl<'a> Change<'a> {
    fn begin(plan: &'a Plan) -> Result<Self, InitError> {
        let resumed = !netlink::begin_change(plan)?;
        Ok(Self { plan, resumed })
    }

    /// Flushes conntrack if anything changed, now or in a run that did not come so far.
    fn end(self, changed: bool, notes: &mut Vec<String>) -> Result<(), InitError> {
        if changed || self.resumed {
            netlink::flush_conntrack(notes)?;
        }
        if self.resumed {
            notes.push("an earlier run was killed on its way: conntrack was flushed".to_owned());
        }
        netlink::end_change(self.plan)
    }
}

fn report(done: &'static str, outcome: Outcome, start: SystemTime, notes: Vec<String>) -> Report {
    let took = start.elapsed().unwrap_or_default();
    Report { done, tools: outcome.tools, changed: outcome.changed, notes, took }
}
