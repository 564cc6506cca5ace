//! The plan put into force: tools for the rules, netlink for address, route and flush.

mod iptables;
pub mod netlink;
mod state;
mod tool;

use std::fmt;
use std::time::Duration;

use crate::InitError;
use crate::plan::Plan;
use crate::settings::Settings;

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

/// Installs the plan, or replaces the one in force.
///
/// Order matters: what captured traffic needs (addresses, routes) is there before the rules; the flush
/// comes last, so that no flow older than the rules goes on past them.
///
/// # Errors
/// If a tool is missing, or the tools or the kernel refuse. What was in force before stays in force.
pub fn apply(plan: &Plan, settings: &Settings) -> Result<Report, InitError> {
    let start = std::time::SystemTime::now();
    let mut notes = Vec::new();
    netlink::prepare(plan, &mut notes)?;
    let outcome = iptables::apply(plan, settings.variant)?;
    netlink::retire(plan)?;
    if outcome.changed {
        netlink::flush_conntrack(&mut notes)?;
    }
    let took = start.elapsed().unwrap_or_default();
    Ok(Report { done: "applied", tools: outcome.tools, changed: outcome.changed, notes, took })
}

/// Removes whatever any run with any settings installed.
///
/// # Errors
/// If the tools or the kernel refuse.
pub fn cleanup(plan: &Plan) -> Result<Report, InitError> {
    let start = std::time::SystemTime::now();
    let mut notes = Vec::new();
    let outcome = iptables::cleanup()?;
    netlink::remove(plan)?;
    if outcome.changed {
        netlink::flush_conntrack(&mut notes)?;
    }
    let took = start.elapsed().unwrap_or_default();
    Ok(Report { done: "cleaned up", tools: outcome.tools, changed: outcome.changed, notes, took })
}
