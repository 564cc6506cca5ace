//! What was asked for: flags and environment, every mistake reported at once.

mod options;
mod parse;

use ipnet::IpNet;
use outrider_model::names;
use std::net::IpAddr;

use crate::plan::PortRange;

pub use options::{OPTIONS, SettingOption};
pub use parse::{Mistake, RawSettings};

/// Most entries that a list may have: a plan stays a few hundred rules, whoever wrote the setting.
pub const MAX_ENTRIES: usize = 64;

/// How inbound traffic reaches the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// By address translation; the workload sees 127.0.0.6 or ::6.
    Redirect,
    /// By a transparent socket; the workload sees the client.
    Tproxy,
}

/// Which tools install the rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backend {
    /// iptables-restore and ip6tables-restore, one transaction per table.
    Iptables,
    /// nft, one transaction for everything.
    Nft,
}

/// Which build of the iptables tools to use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Variant {
    /// The one that works and already holds rules.
    Auto,
    /// The tools over nf_tables.
    Nft,
    /// The tools over the older kernel interface.
    Legacy,
}

/// Ports to capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ports {
    /// Every port.
    All,
    /// No port: capture is off in this direction.
    None,
    /// These.
    Only(Vec<PortRange>),
}

/// Destinations to capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Destinations {
    /// Every address, of both families.
    All,
    /// These networks.
    Only(Vec<IpNet>),
}

/// Groups whose connections are captured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Groups {
    /// Every group.
    All,
    /// These.
    Only(Vec<u32>),
}

/// Which questions to name servers go to the proxy's DNS listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Dns {
    /// None.
    Off,
    /// All, whatever server they ask.
    All,
    /// Those to these servers.
    Servers(Vec<IpAddr>),
}

/// What may not pass uncaptured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// Everything may.
    Off,
    /// TCP may not.
    Tcp,
    /// Nothing may, whatever its protocol.
    All,
}

/// Whether what is not TCP waits for the proxy's verdict, and what becomes of it if the proxy reads no queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Queue {
    /// It does not.
    Off,
    /// It passes then.
    Open,
    /// It is dropped then.
    Closed,
}

/// Everything a plan depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// How inbound traffic reaches the proxy.
    pub mode: Mode,
    /// Which tools install the rules.
    pub backend: Backend,
    /// Which build of the iptables tools.
    pub variant: Variant,
    /// The proxy's listener for connections that the workload opens.
    pub outbound_port: u16,
    /// The proxy's listener for connections that arrive.
    pub inbound_port: u16,
    /// The proxy's DNS listener.
    pub dns_port: u16,
    /// The proxy's health and metrics, never captured.
    pub health_port: u16,
    /// Users that are the proxy.
    pub proxy_uids: Vec<u32>,
    /// Groups that are the proxy; empty by default, since a group is easier to join than a user.
    pub proxy_gids: Vec<u32>,
    /// Mark that the proxy's sockets must carry in addition.
    pub secret_mark: Option<u32>,
    /// Inbound ports to capture.
    pub inbound_ports: Ports,
    /// Inbound ports to leave alone.
    pub exclude_inbound_ports: Vec<PortRange>,
    /// Outbound ports to capture.
    pub outbound_ports: Ports,
    /// Outbound ports to leave alone.
    pub exclude_outbound_ports: Vec<PortRange>,
    /// Outbound networks to capture.
    pub outbound_cidrs: Destinations,
    /// Outbound networks to leave alone.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Interfaces to leave alone.
    pub exclude_interfaces: Vec<String>,
    /// Interfaces of virtual machines: what they send is outbound.
    pub virtual_interfaces: Vec<String>,
    /// Groups whose connections are captured.
    pub groups: Groups,
    /// Groups to leave alone.
    pub exclude_groups: Vec<u32>,
    /// Questions to name servers.
    pub dns: Dns,
    /// What may not pass uncaptured.
    pub guard: Guard,
    /// The packet queue.
    pub queue: Queue,
    /// Whether packets that conntrack does not understand are dropped.
    pub drop_invalid: bool,
    /// Mark of packets that TPROXY took.
    pub mark: u32,
    /// Route table behind the mark.
    pub table: u32,
}

impl Settings {
    /// Whether the guard drops what is not TCP; where there is a queue, the proxy decides about that.
    pub fn guards_everything(&self) -> bool {
        self.guard == Guard::All && self.queue == Queue::Off
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Redirect,
            backend: Backend::Iptables,
            variant: Variant::Auto,
            outbound_port: names::OUTBOUND_PORT,
            inbound_port: names::INBOUND_PORT,
            dns_port: names::DNS_PORT,
            health_port: names::HEALTH_PORT,
            proxy_uids: vec![names::PROXY_UID],
            proxy_gids: Vec::new(),
            secret_mark: None,
            inbound_ports: Ports::All,
            exclude_inbound_ports: Vec::new(),
            outbound_ports: Ports::All,
            exclude_outbound_ports: Vec::new(),
            outbound_cidrs: Destinations::All,
            exclude_outbound_cidrs: Vec::new(),
            exclude_interfaces: Vec::new(),
            virtual_interfaces: Vec::new(),
            groups: Groups::All,
            exclude_groups: Vec::new(),
            dns: Dns::Off,
            guard: Guard::Tcp,
            queue: Queue::Off,
            drop_invalid: true,
            mark: names::FWMARK,
            table: names::ROUTE_TABLE,
        }
    }
}

#[cfg(test)]
mod tests;
