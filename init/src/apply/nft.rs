//! The nft tool: one transaction.

use nix::net::if_::if_nameindex;

use super::Outcome;
use super::netlink;
use super::tool;
use crate::InitError;
use crate::plan::Plan;
use crate::render::nft::{Place, TABLE, removal, ruleset};

const TOOL: &str = "nft";

/// Our tables, by family.
const TABLES: [(&str, u8); 2] = [("inet", netlink::INET), ("netdev", netlink::NETDEV)];

/// Installs the plan in place of whatever our tables held.
pub(super) fn apply(plan: &Plan, notes: &mut Vec<String>) -> Result<Outcome, InitError> {
    let before = list()?;
    let mut place = Place { devices: devices(plan)?, occupied: !before.is_empty() };
    if let Err(refused) = install(plan, &place) {
        // Older kernels have no hook at devices; without it the rest must do, which the second try tells.
        place.devices.clear();
        install(plan, &place).map_err(without_queue)?;
        notes.push(format!("packet sockets pass by: no egress hook at devices ({refused})"));
    }
    let changed = before.is_empty() || list()? != before;
    Ok(Outcome { tools: TOOL.to_owned(), changed })
}

fn install(plan: &Plan, place: &Place) -> Result<(), InitError> {
    tool::run(TOOL, &["-f", "-"], &ruleset(plan, place)).map(drop)
}

/// nft repeats the statement that was refused.
fn without_queue(error: InitError) -> InitError {
    match error {
        InitError::Refused(text)
            if text
                .lines()
                .any(|line| line.trim_start().starts_with("queue ")) =>
        {
            InitError::NoQueue(text)
        }
        other => other,
    }
}

/// The devices that packets leave by.
fn devices(plan: &Plan) -> Result<Vec<String>, InitError> {
    let all = if_nameindex().map_err(std::io::Error::from)?;
    let names = all
        .iter()
        .map(|device| device.name().to_string_lossy().into_owned());
    Ok(names
        .filter(|name| name != "lo" && !plan.unguarded.contains(name))
        .collect())
}

/// Removes our tables; false if none is there.
pub(super) fn remove() -> Result<bool, InitError> {
    let mut exists = false;
    for (_, family) in TABLES {
        exists |= netlink::table_exists(family, TABLE)?;
    }
    if exists {
        tool::run(TOOL, &["-f", "-"], &removal())?;
    }
    Ok(exists)
}

/// What our tables hold; empty if none is there.
fn list() -> Result<String, InitError> {
    let mut text = String::new();
    for (name, family) in TABLES {
        if netlink::table_exists(family, TABLE)? {
            text += &tool::run(TOOL, &["list", "table", name, TABLE], "")?;
        }
    }
    Ok(text)
}
