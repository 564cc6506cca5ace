//! What a proxy reports.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use outrider_model::{AppId, IpProto, PolicyAction, RuleId, Severity, ThreatId};

/// Flows of one kind during one interval, as the proxy of one workload counted them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The workload whose proxy reports, by uid.
    pub reporter: Arc<str>,
    /// The reporter is the server.
    pub inbound: bool,
    /// Who opened the flows.
    pub client: IpAddr,
    /// Port of one of them.
    pub client_port: Option<u16>,
    /// Where they went.
    pub server: IpAddr,
    /// To which port.
    pub port: u16,
    /// By which protocol.
    pub proto: IpProto,
    /// The application; [`AppId::UNKNOWN`] if none was identified, [`AppId::NOT_CHECKED`] if the
    /// flow was refused before a byte was seen.
    pub app: AppId,
    /// What policy said last.
    pub action: PolicyAction,
    /// Which rule said it.
    pub rule: RuleId,
    /// Bytes both ways since the last row.
    pub bytes: u64,
    /// Sessions that started since the last row.
    pub sessions: u64,
    /// Violating events since the last row.
    pub violations: u64,
    /// First sight, Unix seconds.
    pub first_seen: u64,
    /// Last sight, Unix seconds.
    pub last_seen: u64,
    /// The worst threat.
    pub threat: ThreatId,
    /// How bad it is.
    pub severity: Severity,
}

/// One flow beside a row: it adds names and evidence, and is not counted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sample {
    /// The workload whose proxy reports, by uid.
    pub reporter: Arc<str>,
    /// The reporter is the server.
    pub inbound: bool,
    /// Who opened the flow.
    pub client: SocketAddr,
    /// Where it went.
    pub server: SocketAddr,
    /// By which protocol.
    pub proto: IpProto,
    /// The application.
    pub app: AppId,
    /// When, Unix seconds.
    pub at: u64,
    /// Names that the client asked for.
    pub names: Vec<Box<str>>,
}
