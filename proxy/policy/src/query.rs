//! One flow, as policy is asked about it.

use std::net::IpAddr;

use outrider_model::{AppId, Direction, IpProto, Mode};

use crate::compile::PENDING;

/// What is known of a flow's application.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AppKnowledge {
    /// Nothing yet.
    Pending,
    /// It was identified.
    Known(AppId),
    /// It will never be identified.
    Unidentified,
}

/// One flow, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who opened it.
    pub client: IpAddr,
    /// Where it goes.
    pub server: IpAddr,
    /// The server's port; taken as 0 for ICMP.
    pub port: u16,
    /// Its protocol.
    pub proto: IpProto,
    /// Relative to the workload.
    pub direction: Direction,
    /// Its application.
    pub app: AppKnowledge,
    /// HTTP host or TLS server name.
    pub host: Option<&'a str>,
    /// The workload's mode.
    pub mode: Mode,
}

impl Query<'_> {
    pub(crate) fn peer(&self) -> IpAddr {
        match self.direction {
            Direction::Inbound => self.client.to_canonical(),
            Direction::Outbound => self.server.to_canonical(),
        }
    }

    pub(crate) fn local(&self) -> IpAddr {
        match self.direction {
            Direction::Inbound => self.server.to_canonical(),
            Direction::Outbound => self.client.to_canonical(),
        }
    }

    pub(crate) fn app_point(&self) -> u32 {
        match self.app {
            AppKnowledge::Pending => PENDING,
            AppKnowledge::Known(AppId::UNKNOWN) | AppKnowledge::Unidentified => {
                AppId::UNIDENTIFIED.0
            }
            AppKnowledge::Known(app) => app.0,
        }
    }

    pub(crate) fn is_icmp(&self) -> bool {
        matches!(self.proto, IpProto::ICMP | IpProto::ICMPV6)
    }
}
