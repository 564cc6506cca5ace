//! EVIDENCE (66), ours.

use std::net::SocketAddr;

use outrider_model::{AppId, IpProto, RuleId};
use serde::{Deserialize, Serialize};

use super::{EVIDENCE, json};
use crate::{
    ActionCode, Body, Kind, Reader, WireError, Writer,
    error::within,
    limits::{MAX_EVIDENCE, MAX_MESSAGE},
};

/// Sample flows, at most one for each connection row of a batch. JSON text on the wire.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Evidence {
    /// The flows, at most [`MAX_EVIDENCE`].
    pub flows: Vec<SampleFlow>,
}

/// One flow, as it was.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SampleFlow {
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it was meant to go.
    pub server: SocketAddr,
    /// IP protocol.
    pub proto: IpProto,
    /// Whether the workload is the server.
    pub inbound: bool,
    /// What it speaks.
    pub app: AppId,
    /// The deciding rule.
    pub rule: RuleId,
    /// What policy says.
    pub action: ActionCode,
    /// HTTP's host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// TLS's server name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sni: String,
    /// From the client.
    pub bytes_client: u64,
    /// From the server.
    pub bytes_server: u64,
    /// Unix seconds: when it began.
    pub at: u64,
}

impl Evidence {
    /// Splits flows of any number, by number and by size.
    ///
    /// # Errors
    /// [`WireError::TooMany`] if a host or a server name is longer than it may be.
    pub fn split(flows: &[SampleFlow]) -> Result<Vec<Self>, WireError> {
        let (mut done, mut current, mut size) = (Vec::new(), Self::default(), FRAME_SIZE);
        for flow in flows {
            flow.check()?;
            let needs = serde_json::to_vec(flow)
                .map_err(|_never| WireError::Json)?
                .len();
            let with = size.saturating_add(needs).saturating_add(1);
            if with > MAX_MESSAGE || current.flows.len() == MAX_EVIDENCE {
                done.push(std::mem::take(&mut current));
                size = FRAME_SIZE;
            }
            size = size.saturating_add(needs).saturating_add(1);
            current.flows.push(flow.clone());
        }
        if !current.flows.is_empty() {
            done.push(current);
        }
        Ok(done)
    }

    fn check(&self) -> Result<(), WireError> {
        within("flows", self.flows.len(), MAX_EVIDENCE)?;
        self.flows.iter().try_for_each(SampleFlow::check)
    }
}

/// Bytes around the flows: header and `{"flows":[]}`.
const FRAME_SIZE: usize = 16;

impl SampleFlow {
    fn check(&self) -> Result<(), WireError> {
        json::short(&self.host)?;
        json::short(&self.sni)
    }
}

impl Body for Evidence {
    const KIND: Kind = EVIDENCE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let evidence: Self = json::read(reader)?;
        evidence.check()?;
        Ok(evidence)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        json::write(self, writer)
    }
}
