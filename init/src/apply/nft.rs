//! The nft tool: one transaction.

use super::Outcome;
use super::netlink;
use super::tool;
use crate::InitError;
use crate::plan::Plan;
use crate::render::nft::{TABLE, removal, ruleset};

const TOOL: &str = "nft";

/// Installs the plan in place of whatever our table held.
pub(super) fn apply(plan: &Plan) -> Result<Outcome, InitError> {
    let before = if netlink::table_exists(netlink::INET, TABLE)? { list()? } else { String::new() };
    tool::run(TOOL, &["-f", "-"], &ruleset(plan))?;
    let changed = before.is_empty() || list()? != before;
    Ok(Outcome { tools: TOOL.to_owned(), changed })
}

/// Removes our table; false if it is not there.
pub(super) fn remove() -> Result<bool, InitError> {
    let exists = netlink::table_exists(netlink::INET, TABLE)?;
    if exists {
        tool::run(TOOL, &["-f", "-"], &removal())?;
    }
    Ok(exists)
}

fn list() -> Result<String, InitError> {
    tool::run(TOOL, &["list", "table", "inet", TABLE], "")
}
