//! STATUS (65), ours.

use std::{collections::BTreeMap, net::IpAddr};

use outrider_model::MacAddr;
use serde::{Deserialize, Serialize};

use super::{Instance, STATUS, json};
use crate::{
    Body, Kind, Reader, WireError, Writer,
    error::within,
    limits::{MAX_STATUS_LIST, MAX_TEXT},
};

/// What the proxy is, and how it is. JSON text on the wire; absent members read as nothing.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Status {
    /// This run of the proxy.
    pub instance: Instance,
    /// Its version.
    pub version: String,
    /// The mode in force.
    pub mode: String,
    /// Number of the policy in force.
    pub policy_version: u64,
    /// What is in force: `default`, `open`, or the `rules` of a bridge, now or in an earlier life of
    /// the proxy. Empty, if it does not say.
    pub policy: String,
    /// Why the last policy that came is not in force; the one before it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// Whether a bridge manages the workload.
    pub managed: bool,
    /// The pod's MAC addresses.
    #[serde(with = "json::macs")]
    pub macs: Vec<MacAddr>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// What the proxy can do.
    pub capabilities: Vec<String>,
    /// What it sees and can stop: `relay+tap+queue` and less.
    pub tier: String,
    /// Whether it ends when its bridge says so, by [`super::Stop`].
    pub stops: bool,
    /// Sums over all flows.
    pub flows: FlowTotals,
    /// What was dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Why a policy was refused whole.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Refusal {
    /// A closed label.
    pub reason: String,
    /// The same for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal; a detail longer than it may be is cut.
    #[must_use]
    pub fn new(reason: &str, mut detail: String) -> Self {
        detail.truncate(detail.floor_char_boundary(MAX_TEXT));
        Self { reason: reason.to_owned(), detail }
    }
}

/// Sums over all flows since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct FlowTotals {
    /// Begun.
    pub opened: u64,
    /// Ended.
    pub closed: u64,
    /// Now.
    pub open: u64,
    /// From clients.
    pub bytes_client: u64,
    /// From servers.
    pub bytes_server: u64,
}

impl Status {
    fn check(&self) -> Result<(), WireError> {
        within("MAC addresses", self.macs.len(), MAX_STATUS_LIST)?;
        within("addresses", self.addresses.len(), MAX_STATUS_LIST)?;
        within("capabilities", self.capabilities.len(), MAX_STATUS_LIST)?;
        within("reasons", self.dropped.len(), MAX_STATUS_LIST)?;
        let texts = [&self.version, &self.mode, &self.tier, &self.policy].into_iter();
        let refused = self.refused.iter();
        texts
            .chain(refused.flat_map(|refused| [&refused.reason, &refused.detail]))
            .chain(&self.capabilities)
            .chain(self.dropped.keys())
            .try_for_each(|text| json::short(text))
    }
}

impl Body for Status {
    const KIND: Kind = STATUS;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let status: Self = json::read(reader)?;
        status.check()?;
        Ok(status)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        json::write(self, writer)
    }
}
