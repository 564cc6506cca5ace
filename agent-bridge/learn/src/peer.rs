//! The other end of what a proxy tells of.

use std::net::IpAddr;

use outrider_model::IpProto;

use crate::{Directory, Endpoint, Row, Sample};

/// The end of a flow that is not the reporter's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reached {
    /// Who that is: of a Service's address, who is behind it.
    pub endpoint: Endpoint,
    /// The server's port, behind a Service that of who is there; 0 for what has no ports.
    pub port: u16,
    /// The server's own proxy reports the same flows.
    pub managed: bool,
}

/// A flow, or several.
struct Seen<'a> {
    reporter: &'a str,
    inbound: bool,
    client: IpAddr,
    server: IpAddr,
    proto: IpProto,
    port: u16,
    /// When they began.
    at: u64,
}

impl Directory {
    /// The end of a row's flows that is not the reporter's own.
    #[must_use]
    pub fn peer(&self, row: &Row) -> Reached {
        self.other(&Seen {
            reporter: &row.reporter,
            inbound: row.inbound,
            client: row.client,
            server: row.server,
            proto: row.proto,
            port: row.port,
            at: row.first_seen,
        })
    }

    pub(crate) fn peer_of_sample(&self, sample: &Sample) -> Reached {
        self.other(&Seen {
            reporter: &sample.reporter,
            inbound: sample.inbound,
            client: sample.client.ip(),
            server: sample.server.ip(),
            proto: sample.proto,
            port: sample.server.port(),
            at: sample.at,
        })
    }

    fn other(&self, flow: &Seen<'_>) -> Reached {
        // What has no port is summed without.
        let port = match flow.proto {
            IpProto::TCP | IpProto::UDP | IpProto::SCTP => flow.port,
            _ => 0,
        };
        if flow.inbound {
            let endpoint = self.endpoint_at(flow.client, flow.at);
            return Reached { endpoint, port, managed: false };
        }
        self.reached(flow.server, flow.proto, port)
            .unwrap_or_else(|| {
                let endpoint = self.server_at(flow.server, flow.reporter, flow.at);
                let managed = self.is_managed(&endpoint);
                Reached { endpoint, port, managed }
            })
    }
}
