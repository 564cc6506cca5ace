//! `ctrl_cfg_policy`.

use outrider_model::{AppId, IpProto, MacAddr, RuleId};
use serde::Serialize;

use super::{TextIp, fields::Fields, go};
use crate::{
    ActionCode, ChunkFlags, Directions, List, PolicyCommand, WireError,
    error::within,
    limits::{MAX_NAME, MAX_RULE_APPS},
};

/// The rules of workloads, or a chunk of them.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Policy {
    /// Put in place, or removed.
    #[serde(rename = "cmd")]
    pub command: PolicyCommand,
    /// Which chunk this is.
    #[serde(rename = "flag")]
    pub chunk: ChunkFlags,
    /// For traffic that no rule names.
    #[serde(rename = "defact")]
    pub default_action: ActionCode,
    /// Where policy applies.
    #[serde(rename = "dir")]
    pub directions: Directions,
    /// The workloads; none: ignore the request.
    #[serde(rename = "mac", serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
    /// In order: the first match wins.
    pub rules: List<Rule>,
    /// Ours: rules between IPv6 addresses, after `rules` ([`crate::ext`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules6: Vec<Rule>,
    /// Ours: whether an unknown peer is let through for a while; absent means yes ([`crate::ext`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<bool>,
}

/// A rule. Client and server are those of the session, whatever way a packet goes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Rule {
    /// Reported with what it decides.
    pub id: RuleId,
    /// Low end of the client's range; all zero without a high end: any external client.
    #[serde(rename = "sip")]
    pub client: TextIp,
    /// Low end of the server's range; all zero without a high end: any external server.
    #[serde(rename = "dip")]
    pub server: TextIp,
    /// High end of the client's range; absent: the same as the low end.
    #[serde(rename = "sipr", skip_serializing_if = "Option::is_none")]
    pub client_end: Option<TextIp>,
    /// High end of the server's range; absent: the same as the low end.
    #[serde(rename = "dipr", skip_serializing_if = "Option::is_none")]
    pub server_end: Option<TextIp>,
    /// Low end of the server's ports.
    pub port: u16,
    /// High end of the server's ports.
    #[serde(rename = "portr")]
    pub port_end: u16,
    /// 0 for TCP and UDP (and ICMP where that is subject to policy).
    pub proto: IpProto,
    /// What it says.
    pub action: ActionCode,
    /// Whether the workload is the server.
    pub ingress: bool,
    /// Stands for the peer's address; a leading `*` label is a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Whether the name must also be the virtual host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vhost: bool,
    /// What it says for applications, if the action is to check them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<RuleApp>,
}

/// What a rule says for an application.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct RuleApp {
    /// Any, unidentified, or one.
    pub app: AppId,
    /// What it says.
    pub action: ActionCode,
    /// Reported with what it decides.
    #[serde(rename = "rid")]
    pub rule: RuleId,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            id: RuleId::IMPLICIT,
            client: TextIp::default(),
            server: TextIp::default(),
            client_end: None,
            server_end: None,
            port: 0,
            port_end: 0,
            proto: IpProto(0),
            action: ActionCode(0),
            ingress: false,
            fqdn: None,
            vhost: false,
            apps: Vec::new(),
        }
    }
}

impl Policy {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self {
            command: PolicyCommand(fields.u32("cmd")),
            chunk: ChunkFlags(fields.u32("flag")),
            default_action: ActionCode(fields.u8("defact")),
            directions: Directions(fields.u32("dir")),
            macs: fields.macs("mac")?,
            rules: fields.list("rules", |rule| Rule::parse(Fields::of(rule)))?,
            rules6: fields
                .list("rules6", |rule| Rule::parse(Fields::of(rule)))?
                .to_vec(),
            grace: fields.switch("grace"),
        })
    }
}

impl Rule {
    fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let fqdn = fields.text_if_any("fqdn")?.map(str::to_owned);
        within("name bytes", fqdn.as_ref().map_or(0, String::len), MAX_NAME)?;
        let apps = fields.list("apps", |app| Ok(RuleApp::parse(Fields::of(app))))?;
        within("applications", apps.len(), MAX_RULE_APPS)?;
        Ok(Self {
            id: RuleId(fields.u32("id")),
            client: fields.ip("sip")?,
            server: fields.ip("dip")?,
            client_end: fields.ip_if_any("sipr")?,
            server_end: fields.ip_if_any("dipr")?,
            port: fields.u16("port"),
            port_end: fields.u16("portr"),
            proto: IpProto(fields.u8("proto")),
            action: ActionCode(fields.u8("action")),
            ingress: fields.is_true("ingress"),
            fqdn,
            vhost: fields.is_true("vhost"),
            apps: apps.to_vec(),
        })
    }
}

impl RuleApp {
    fn parse(fields: Fields<'_>) -> Self {
        Self {
            app: AppId(fields.u32("app")),
            action: ActionCode(fields.u8("action")),
            rule: RuleId(fields.u32("rid")),
        }
    }
}
