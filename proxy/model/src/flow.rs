//! One client-server exchange.

use std::{fmt, net::SocketAddr};

use crate::IpProto;

/// Relative to the workload.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// Arrives at the workload: it is the server.
    Inbound,
    /// The workload opened it: it is the client.
    Outbound,
}

impl Direction {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Role inside the application protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// Who opened the flow.
    Client,
    /// Who answers.
    Server,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Number of a flow, unique since the proxy started; wraps only in theory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who talks to whom: canonical addresses of client and server. ICMP has no ports: the client's is the
/// identifier, the server's is code and type of the request as one number; what has neither has zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FlowKey {
    /// Who opened the flow.
    pub client: SocketAddr,
    /// Where it was meant to go.
    pub server: SocketAddr,
    /// The IP protocol; TCP for all that the listeners take.
    pub proto: IpProto,
    /// Relative to the workload.
    pub direction: Direction,
}
