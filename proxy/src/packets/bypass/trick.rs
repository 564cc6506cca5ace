//! The ways past the proxy that are looked for, and what is said of one that was found.

use std::net::SocketAddr;

use outrider_capture::InetSocket;
use outrider_model::{AppId, Direction, FlowKey, IpProto, Side, ThreatId};
use outrider_telemetry::{MAX_EVIDENCE, ThreatReport};

use super::process;

/// A way past the proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Trick {
    /// Another process with the proxy's user id, which the rules leave alone.
    Identity,
    /// A connection that no rule brought to the proxy: the rules are gone, or left it out.
    Connection,
    /// A connection that is older than the proxy.
    Older,
    /// A segment that no socket of the pod can have sent.
    Forged,
    /// Flags that conntrack does not understand, so that no rule rewrites them.
    Flags,
    /// A packet socket, which sends below the rules.
    PacketSocket,
    /// A raw socket.
    RawSocket,
    /// A socket family that no rule and no tap sees.
    Family,
    /// An interface or an address that came or went.
    Interface,
    /// A port or network that the rules leave out on purpose: no attack.
    Uncaptured,
}

impl Trick {
    /// All of them, for the closed label set.
    pub(crate) const ALL: [Self; 10] = [
        Self::Identity,
        Self::Connection,
        Self::Older,
        Self::Forged,
        Self::Flags,
        Self::PacketSocket,
        Self::RawSocket,
        Self::Family,
        Self::Interface,
        Self::Uncaptured,
    ];

    /// The closed label of logs and metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Connection => "connection",
            Self::Older => "older",
            Self::Forged => "forged",
            Self::Flags => "flags",
            Self::PacketSocket => "packet-socket",
            Self::RawSocket => "raw-socket",
            Self::Family => "family",
            Self::Interface => "interface",
            Self::Uncaptured => "uncaptured",
        }
    }

    /// The number that it is reported under.
    #[must_use]
    pub(crate) fn threat(self) -> ThreatId {
        match self {
            Self::Identity => ThreatId::BYPASS_IDENTITY,
            Self::Connection => ThreatId::BYPASS_CONNECTION,
            Self::Older => ThreatId::BYPASS_OLDER,
            Self::Forged => ThreatId::BYPASS_FORGED,
            Self::Flags => ThreatId::BYPASS_FLAGS,
            Self::PacketSocket => ThreatId::BYPASS_PACKET_SOCKET,
            Self::RawSocket => ThreatId::BYPASS_RAW_SOCKET,
            Self::Family => ThreatId::BYPASS_FAMILY,
            Self::Interface => ThreatId::BYPASS_INTERFACE,
            Self::Uncaptured => ThreatId::UNCAPTURED,
        }
    }
}

/// The two ends of a TCP connection past the proxy.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Ends {
    /// The pod's.
    pub local: SocketAddr,
    /// The other one.
    pub remote: SocketAddr,
    /// Whether the pod is the server.
    pub direction: Direction,
}

impl Ends {
    /// The same as of any other flow.
    pub(crate) fn key(self) -> FlowKey {
        let (client, server) = match self.direction {
            Direction::Outbound => (self.local, self.remote),
            Direction::Inbound => (self.remote, self.local),
        };
        FlowKey { client, server, proto: IpProto::TCP, direction: self.direction }
    }
}

/// Something that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// What it is.
    pub trick: Trick,
    /// The connection, if it is about one.
    pub ends: Option<Ends>,
    /// In a few words.
    pub message: String,
    /// Owner and number of the socket, if one was seen.
    pub socket: Option<(u32, u32)>,
    /// What else it was seen in: addresses, or the packet itself.
    pub evidence: Vec<u8>,
}

impl Finding {
    /// A connection, and the socket that it was seen by if it was.
    pub(crate) fn connection(trick: Trick, ends: Ends, socket: Option<&InetSocket>) -> Self {
        let what = match trick {
            Trick::Identity => "runs as the proxy's user",
            Trick::Older => "connection older than the proxy",
            Trick::Forged => "TCP without a socket of the pod",
            Trick::Uncaptured => "left out by the rules on purpose",
            _ => "connection that never crossed the proxy",
        };
        let evidence = format!("local={} remote={}", ends.local, ends.remote).into();
        let socket = socket.map(|socket| (socket.uid, socket.inode));
        Self { trick, ends: Some(ends), message: what.to_owned(), socket, evidence }
    }

    /// Something that is no connection.
    pub(crate) fn plain(trick: Trick, message: String, evidence: String) -> Self {
        Self { trick, ends: None, message, socket: None, evidence: evidence.into() }
    }

    /// Adds whose socket it is, and which process holds it if that is asked for and can be seen.
    pub(crate) fn name_owner(&mut self, look: bool) {
        let Some((uid, inode)) = self.socket else { return };
        self.evidence
            .extend(format!(" uid={uid} inode={inode}").bytes());
        if let Some(process) = look.then(|| process::holder(inode)).flatten() {
            self.evidence.extend(format!(" process={process}").bytes());
        }
    }

    /// The report of it.
    pub(crate) fn report(&self, enforced: bool, stopped: bool) -> ThreatReport {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let of_nobody = FlowKey {
            client: nobody,
            server: nobody,
            proto: IpProto::TCP,
            direction: Direction::Outbound,
        };
        let FlowKey { client, server, proto, direction } = self.ends.map_or(of_nobody, Ends::key);
        let side = match direction {
            Direction::Outbound => Side::Client,
            Direction::Inbound => Side::Server,
        };
        let mut evidence = self.evidence.clone();
        let length = evidence.len();
        evidence.truncate(MAX_EVIDENCE);
        ThreatReport {
            id: self.trick.threat(),
            direction,
            side,
            client,
            server,
            proto,
            app: AppId::UNKNOWN,
            enforced,
            stopped,
            message: self.message.clone(),
            evidence,
            is_packet: false,
            length,
            count: 1,
            reported_at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trick_has_a_label_and_a_number_with_a_name_of_its_own() {
        let mut labels = Trick::ALL.map(Trick::label).to_vec();
        let mut names = Trick::ALL
            .map(|trick| trick.threat().name().unwrap())
            .to_vec();
        for list in [&mut labels, &mut names] {
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), Trick::ALL.len());
        }
    }

    #[test]
    fn a_report_says_who_is_client_by_the_direction() {
        let (local, remote) = ("10.0.0.2:80".parse().unwrap(), "10.0.0.9:4000".parse().unwrap());
        let ends = Ends { local, remote, direction: Direction::Inbound };
        let report = Finding::connection(Trick::Connection, ends, None).report(true, false);
        assert_eq!((report.client, report.server), (remote, local));
        let ends = Ends { direction: Direction::Outbound, ..ends };
        let report = Finding::connection(Trick::Connection, ends, None).report(true, false);
        assert_eq!((report.client, report.server), (local, remote));
        assert!(report.message.chars().count() <= outrider_telemetry::MAX_MESSAGE);
    }
}
