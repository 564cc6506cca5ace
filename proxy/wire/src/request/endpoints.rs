//! Workloads, by MAC address.

use outrider_model::{AppId, IpProto, MacAddr};
use serde::Serialize;

use super::{TextIp, fields::Fields, go};
use crate::{List, WireError};

/// A workload is managed from now on.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct AddMac {
    /// For people.
    pub iface: String,
    /// The workload.
    #[serde(serialize_with = "go::mac")]
    pub mac: MacAddr,
    /// Another unicast address of it.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub ucmac: Option<MacAddr>,
    /// Its broadcast address.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub bcmac: Option<MacAddr>,
    /// Its name until now, under which its state is kept.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub oldmac: Option<MacAddr>,
    /// The pod, if this is its loopback leg.
    #[serde(serialize_with = "go::mac_or_empty")]
    pub pmac: Option<MacAddr>,
    /// The pod's addresses.
    pub pips: List<ParentIp>,
    /// It is the pod that the proxy is in, whatever its interfaces say: member `outrider_pod`, absent when false.
    #[serde(rename = "outrider_pod", skip_serializing_if = "std::ops::Not::not")]
    pub is_pod: bool,
}

/// An address of a pod.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ParentIp {
    /// The address.
    pub ip: TextIp,
}

impl AddMac {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            iface: fields.text("iface")?.to_owned(),
            mac: fields.mac("mac")?,
            ucmac: fields.mac_or_none("ucmac"),
            bcmac: fields.mac_or_none("bcmac"),
            oldmac: fields.mac_or_none("oldmac"),
            pmac: fields.mac_or_none("pmac"),
            pips: fields.list("pips", |pip| Ok(ParentIp { ip: Fields::of(pip).ip("ip")? }))?,
            is_pod: fields.is_true("outrider_pod"),
        })
    }
}

/// A workload is no longer managed: its sessions end and are reported.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DelMac {
    /// For people.
    pub iface: String,
    /// The workload.
    #[serde(serialize_with = "go::mac")]
    pub mac: MacAddr,
}

impl DelMac {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { iface: fields.text_or_empty("iface")?.to_owned(), mac: fields.mac("mac")? })
    }
}

/// Whether workloads are observed or enforced, and where they listen.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CfgMac {
    /// The workloads, unknown ones skipped; none: ignore the request.
    #[serde(serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
    /// True to observe, false to enforce; absent: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<bool>,
    /// The complete list of listening ports; absent: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apps: Option<Vec<ListeningPort>>,
}

/// A port a workload listens on, with what the agent takes it for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct ListeningPort {
    /// TCP or UDP.
    pub ip_proto: IpProto,
    /// The port.
    pub port: u16,
    /// Application.
    pub app: AppId,
    /// Server software.
    pub server: AppId,
}

impl CfgMac {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let apps = fields.list("apps", |app| {
            let app = Fields::of(app);
            Ok(ListeningPort {
                ip_proto: IpProto(app.u8("ip_proto")),
                port: app.u16("port"),
                app: AppId(app.u32("app")),
                server: AppId(app.u32("server")),
            })
        })?;
        Ok(Self {
            macs: fields.macs("macs")?,
            tap: fields.switch("tap"),
            apps: (!apps.is_nil()).then(|| apps.to_vec()),
        })
    }
}

/// Whether a namespace's boundary is enforced for workloads.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CfgNbe {
    /// The workloads; none: ignore the request.
    #[serde(serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
    /// Absent: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbe: Option<bool>,
}

impl CfgNbe {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { macs: fields.macs("macs")?, nbe: fields.switch("nbe") })
    }
}
