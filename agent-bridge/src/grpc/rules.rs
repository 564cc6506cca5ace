//! Rules in force, as the compressed JSON that `CLUSDerivedPolicyRuleMap` carries: members have the
//! names of the fields, members that say nothing are left out, addresses are base64.

use std::{collections::BTreeMap, io::Write, net::IpAddr};

use flate2::{Compression, write::GzEncoder};
use outrider_wire::request::{Rule, TextIp};
use serde::Serialize;

use super::MAX_MESSAGE;
use crate::{
    mailbox::{program::Desired, rules},
    node::threats::base64,
};

#[derive(Debug, Serialize)]
struct Listed {
    #[serde(rename = "Rules", skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Derived>,
}

/// `CLUSDerivedPolicyRule`.
#[derive(Debug, Serialize)]
struct Derived {
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    id: u32,
    #[serde(rename = "SrcIP")]
    client: String,
    #[serde(rename = "DstIP")]
    server: String,
    #[serde(rename = "SrcIPR", skip_serializing_if = "Option::is_none")]
    client_end: Option<String>,
    #[serde(rename = "DstIPR", skip_serializing_if = "Option::is_none")]
    server_end: Option<String>,
    #[serde(rename = "Port", skip_serializing_if = "is_zero")]
    port: u32,
    #[serde(rename = "PortR", skip_serializing_if = "is_zero")]
    port_end: u32,
    #[serde(rename = "IPProto", skip_serializing_if = "is_zero")]
    proto: u32,
    #[serde(rename = "Action", skip_serializing_if = "is_zero")]
    action: u32,
    #[serde(rename = "Ingress", skip_serializing_if = "std::ops::Not::not")]
    ingress: bool,
    #[serde(rename = "FQDN", skip_serializing_if = "Option::is_none")]
    fqdn: Option<String>,
    #[serde(rename = "Apps", skip_serializing_if = "Vec::is_empty")]
    apps: Vec<App>,
}

/// `CLUSDerivedPolicyApp`.
#[derive(Debug, Serialize)]
struct App {
    #[serde(rename = "App", skip_serializing_if = "is_zero")]
    app: u32,
    #[serde(rename = "Action", skip_serializing_if = "is_zero")]
    action: u32,
    #[serde(rename = "RuleID", skip_serializing_if = "is_zero")]
    rule: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The rules of these workloads by uid; an error if they do not fit a message.
pub(super) fn compressed(desired: &[std::sync::Arc<Desired>]) -> Result<Vec<u8>, tonic::Status> {
    let listed = |desired: &std::sync::Arc<Desired>| {
        let (v4, v6) = rules::to_wire(&desired.policy.spec.rules);
        let rules = v4.iter().chain(&v6).map(derived).collect();
        (desired.workload.uid.clone(), Listed { rules })
    };
    let all: BTreeMap<_, _> = desired.iter().map(listed).collect();
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut out, &all)
        .map_err(std::io::Error::from)
        .and_then(|()| out.flush())
        .and_then(|()| out.finish())
        .map_err(|error| tonic::Status::internal(error.to_string()))
        .and_then(|bytes| match bytes.len() {
            0..MAX_MESSAGE => Ok(bytes),
            _ => Err(tonic::Status::out_of_range("too many rules for a message: name a workload")),
        })
}

fn derived(rule: &Rule) -> Derived {
    Derived {
        id: rule.id.0,
        client: address(rule.client),
        server: address(rule.server),
        client_end: rule.client_end.map(address),
        server_end: rule.server_end.map(address),
        port: rule.port.into(),
        port_end: rule.port_end.into(),
        proto: rule.proto.0.into(),
        action: rule.action.0.into(),
        ingress: rule.ingress,
        fqdn: rule.fqdn.clone(),
        apps: rule
            .apps
            .iter()
            .map(|app| App { app: app.app.0, action: app.action.0.into(), rule: app.rule.0 })
            .collect(),
    }
}

fn address(ip: TextIp) -> String {
    match ip.0 {
        Some(IpAddr::V4(ip)) => base64(&ip.octets()),
        Some(IpAddr::V6(ip)) => base64(&ip.octets()),
        None => String::new(),
    }
}
