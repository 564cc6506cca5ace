//! Where traffic is taken from.

use outrider_model::MacAddr;
use serde::Serialize;

use super::{fields::Fields, go};
use crate::WireError;

/// An interface to observe.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct TapPort {
    /// Path of the network namespace: a hint.
    pub netns: String,
    /// Name of the interface in it.
    pub iface: String,
    /// The workload; none when it is taken away.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub epmac: Option<MacAddr>,
}

impl TapPort {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { epmac: fields.mac_if_any("epmac")?, ..Self::parse_removal(fields)? })
    }

    pub(super) fn parse_removal(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            netns: fields.text("netns")?.to_owned(),
            iface: fields.text("iface")?.to_owned(),
            epmac: fields.mac_or_none("epmac"),
        })
    }
}

/// A packet queue of a pod's namespace: inline.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct NfqPort {
    /// Path of the network namespace: a hint.
    pub netns: String,
    /// Name of the interface in it.
    pub iface: String,
    /// Number of the queue.
    pub qnum: u32,
    /// The workload; none when it is taken away.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub epmac: Option<MacAddr>,
    /// Whether the host's MTU is large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jumboframe: Option<bool>,
}

impl NfqPort {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { epmac: fields.mac_if_any("epmac")?, ..Self::parse_removal(fields)? })
    }

    pub(super) fn parse_removal(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            netns: fields.text("netns")?.to_owned(),
            iface: fields.text("iface")?.to_owned(),
            qnum: fields.u32("qnum"),
            epmac: fields.mac_or_none("epmac"),
            jumboframe: fields.switch("jumboframe"),
        })
    }
}

/// The node's inline port.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ServicePort {
    /// Name of the interface.
    pub iface: String,
    /// Whether the host's MTU is large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jumboframe: Option<bool>,
}

impl ServicePort {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            iface: fields.text("iface")?.to_owned(),
            jumboframe: fields.switch("jumboframe"),
        })
    }
}

/// Two bridged interfaces: inline.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct PortPair {
    /// The outer interface.
    pub vex_iface: String,
    /// The inner interface.
    pub vin_iface: String,
    /// The workload; none when it is taken away.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub epmac: Option<MacAddr>,
    /// Whether the workload is quarantined: all of its traffic is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quar: Option<bool>,
}

impl PortPair {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { epmac: fields.mac_if_any("epmac")?, ..Self::parse_removal(fields)? })
    }

    pub(super) fn parse_removal(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            vex_iface: fields.text("vex_iface")?.to_owned(),
            vin_iface: fields.text("vin_iface")?.to_owned(),
            epmac: fields.mac_or_none("epmac"),
            quar: fields.switch("quar"),
        })
    }
}
