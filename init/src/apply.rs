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
    netlink::prepare(plan, &mut notes)?;
    let mut outcome = match settings.backend {
        Backend::Iptables => iptables::apply(plan, settings.variant)?,
        Backend::Nft => nft::apply(plan)?,
    };
    outcome.changed |= match settings.backend {
        Backend::Iptables => nft::remove()?,
        Backend::Nft => iptables::remove_if_any()?.changed,
    };
    netlink::retire(plan)?;
    report("applied", outcome, start, notes)
}

/// Removes whatever any run with any settings installed.
///
/// # Errors
/// If the tools or the kernel refuse.
pub fn cleanup(plan: &Plan) -> Result<Report, InitError> {
    let start = SystemTime::now();
    let mut outcome = iptables::remove_if_any()?;
    if nft::remove()? {
        let also = if outcome.changed { format!(" and {}", outcome.tools) } else { String::new() };
        outcome = Outcome { tools: format!("nft{also}"), changed: true };
    }
    netlink::remove(plan)?;
    report("cleaned up", outcome, start, Vec::new())
}

/// Ends a run: flushes conntrack if anything changed, and sums up.
fn report(
    done: &'static str,
    outcome: Outcome,
    start: SystemTime,
    mut notes: Vec<String>,
) -> Result<Report, InitError> {
    if outcome.changed {
        netlink::flush_conntrack(&mut notes)?;
    }
    let took = start.elapsed().unwrap_or_default();
    Ok(Report { done, tools: outcome.tools, changed: outcome.changed, notes, took })
}
