//! What simulated proxies report: made up, but by fixed rules, so that the sums are known.

use std::net::{IpAddr, Ipv4Addr};

use outrider_model::{AppId, MacAddr, PolicyAction, Severity};
use outrider_wire::{Connection, ConnectionFlags, EtherType};

/// The namespace of all workloads.
pub const NAMESPACE: &str = "load";
/// Port of the servers; made-up ports count up from it.
const PORT: u16 = 8080;

/// What an honest proxy's reports look like.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Proxies that are talked about.
    pub peers: u32,
    /// Rows of one report.
    pub rows: u32,
    /// Which conversations they belong to.
    pub shape: Shape,
}

/// How rows spread over conversations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Every proxy's workload is the server of so many conversations, over and over.
    Steady(u32),
    /// The same, and each row comes from the client's proxy instead.
    Clients(u32),
    /// Every row begins a conversation that there was none of.
    Fresh,
    /// Every row is a violation of one of so many kinds.
    Violating(u32),
    /// Half of the rows begin conversations, half are kinds of violations, none of which there were; and
    /// [more](super::everything) goes with them.
    Everything,
}

/// A conversation among those of one server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Who opened the flows.
    pub client: u32,
    /// To which port.
    pub port: u16,
}

/// A conversation as people see it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Pair {
    /// The client's display name.
    pub client: String,
    /// The server's.
    pub server: String,
    /// Port of the server.
    pub port: u16,
}

impl Key {
    /// The same, as people see it, of a server.
    #[must_use]
    pub fn pair(self, server: u32) -> Pair {
        Pair { client: name(self.client), server: name(server), port: self.port }
    }
}

impl Traffic {
    /// The rows of report number `wave` of one proxy, seen last at `now`.
    #[must_use]
    pub fn wave(self, number: u32, wave: u64, now: u32) -> Vec<Connection> {
        (0..self.rows)
            .map(|row| self.row(number, wave, row, now))
            .collect()
    }

    fn row(self, number: u32, wave: u64, row: u32, now: u32) -> Connection {
        let peer = |of: u32| (number + 1 + row % of.max(1)) % self.peers.max(1);
        let (other, port) = match self.shape {
            Shape::Steady(keys) | Shape::Clients(keys) | Shape::Violating(keys) => {
                let port = row % keys.max(1) / self.peers.max(1);
                (peer(keys), PORT.wrapping_add(u16::try_from(port).unwrap_or_default()))
            }
            Shape::Fresh | Shape::Everything => {
                let all = wave.wrapping_mul(self.rows.into()).wrapping_add(row.into());
                let port = u16::try_from(all / u64::from(self.peers.max(1)) % 65_536);
                (peer(self.peers), port.unwrap_or_default())
            }
        };
        let inbound = !matches!(self.shape, Shape::Clients(_));
        let (client, server) = if inbound { (other, number) } else { (number, other) };
        let violating = match self.shape {
            Shape::Violating(_) => true,
            Shape::Everything => row >= self.rows / 2,
            _ => false,
        };
        let action = if violating { PolicyAction::Violate } else { PolicyAction::Learn };
        Connection {
            epmac: mac(number),
            client_ip: address(client).into(),
            server_ip: address(server).into(),
            ether_type: EtherType::IPV4,
            server_port: port,
            flags: ConnectionFlags::NONE.with(ConnectionFlags::INGRESS, inbound),
            bytes: 100 + row,
            sessions: 1 + row % 3,
            first_seen_at: now,
            last_seen_at: now,
            application: AppId::HTTP,
            policy_action: action.into(),
            severity: Severity::None.into(),
            violates: u32::from(violating),
            ..Connection::default()
        }
    }

    /// The conversation of a row, if its sessions count where it is reported.
    #[must_use]
    pub fn key(self, row: &Connection) -> Option<Key> {
        let client = row.client().and_then(number_of)?;
        let counts = row.flags.contains(ConnectionFlags::INGRESS);
        counts.then_some(Key { client, port: row.server_port })
    }
}

/// A uid as Kubernetes gives them.
#[must_use]
pub fn uid(number: u32) -> String {
    format!("6f1f4d53-9a0e-4c52-8f0c-{number:012}")
}

/// What a workload is a replica of.
#[must_use]
pub fn service(number: u32) -> String {
    format!("service-{number}")
}

/// Its display name.
#[must_use]
pub fn name(number: u32) -> String {
    format!("{NAMESPACE}/{}", service(number))
}

/// Its address; pods fill a /22.
#[must_use]
pub fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(FIRST + number).into()
}

/// Whose address it is.
fn number_of(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(FIRST),
        IpAddr::V6(_) => None,
    }
}

/// Its MAC address.
#[must_use]
pub fn mac(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0x58, a, b, c, d])
}

/// 10.58.0.2.
const FIRST: u32 = 0x0a3a_0002;
