//! Requests, from the agent to the data path.

mod endpoints;
pub(crate) mod fields;
mod fqdn;
mod global;
mod go;
mod policy;
mod ports;
mod query;
mod sensors;
mod subnets;
#[cfg(test)]
mod tests;
mod text_ip;

pub use endpoints::{AddMac, CfgMac, CfgNbe, DelMac, ListeningPort, ParentIp};
pub use fqdn::{DelFqdn, SetFqdn};
pub use global::{
    DetectUnmanaged, DisableNetPolicy, EnableIcmpPolicy, KeepAlive, SetDebug, StrictGroupMode,
    SysConf,
};
pub use policy::{Policy, Rule, RuleApp};
pub use ports::{NfqPort, PortPair, ServicePort, TapPort};
pub use query::{ClearSession, StatsMacs};
pub use sensors::{BuildDlp, BuildDlpMac, CfgDlp, CfgDlpMac, SensorChoice, SensorRule};
pub use subnets::{SpecialIp, SpecialSubnet, Subnet, Subnets};
pub use text_ip::TextIp;

use crate::{
    WireError,
    ext::{Ack, CaptureOrder, CaptureStop, Hello, Stop},
    limits::MAX_REQUEST,
};
use fields::Fields;
use serde::Serialize;

/// The name of a member, from that of the field.
macro_rules! member {
    ($field:ident) => {
        stringify!($field)
    };
}
use member;

/// Arguments of a query that has none.
#[derive(Serialize)]
struct Nothing {}

/// Declares the requests: key, variant, arguments, and how they are read.
macro_rules! requests {
    (
        queries { $($(#[$query_doc:meta])* $query_key:literal => $query:ident,)* }
        commands { $($(#[$doc:meta])* $key:literal => $variant:ident($args:ty, $parse:expr),)* }
    ) => {
        /// One request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($(#[$query_doc])* $query,)*
            $($(#[$doc])* $variant($args),)*
        }

        impl Request {
            /// Every key this build knows.
            pub const KEYS: &[&str] = &[$($query_key,)* $($key,)*];

            /// The member name that says which request it is.
            #[must_use]
            pub fn key(&self) -> &'static str {
                match self {
                    $(Self::$query => $query_key,)*
                    $(Self::$variant(_) => $key,)*
                }
            }

            fn parse(key: &str, fields: Fields<'_>) -> Result<Self, WireError> {
                match key {
                    $($query_key => Ok(Self::$query),)*
                    $($key => $parse(fields).map(Self::$variant),)*
                    _ => Err(WireError::UnknownKey),
                }
            }

            /// The datagram, however long.
            pub(crate) fn json(&self) -> Result<Vec<u8>, WireError> {
                match self {
                    $(Self::$query => go::request($query_key, &Nothing {}),)*
                    $(Self::$variant(arguments) => go::request($key, arguments),)*
                }
            }
        }
    };
}

requests! {
    queries {
        /// Report every workload's listening ports at once.
        "ctrl_refresh_app" => RefreshApp,
        /// Asks for [`DeviceStats`](crate::DeviceStats).
        "ctrl_stats_device" => StatsDevice,
        /// Asks for [`DeviceCounter`](crate::DeviceCounter).
        "ctrl_counter_device" => CounterDevice,
        /// Asks for [`SessionCount`](crate::SessionCount).
        "ctrl_count_session" => CountSession,
        /// Asks for [`SessionList`](crate::SessionList)s.
        "ctrl_list_session" => ListSession,
        /// Asks for [`MeterList`](crate::MeterList)s.
        "ctrl_list_meter" => ListMeter,
    }
    commands {
        /// Asks for [`KeepAlive`](crate::KeepAlive).
        "ctrl_keep_alive" => KeepAlive(KeepAlive, KeepAlive::parse),
        /// What to log.
        "ctrl_set_debug" => SetDebug(SetDebug, SetDebug::parse),
        /// X-Forwarded-For.
        "ctrl_sys_conf" => SysConf(SysConf, SysConf::parse),
        /// Policy on and off.
        "ctrl_disable_net_policy" => DisableNetPolicy(DisableNetPolicy, DisableNetPolicy::parse),
        /// Unmanaged peers.
        "ctrl_detect_unmanaged_wl" => DetectUnmanaged(DetectUnmanaged, DetectUnmanaged::parse),
        /// ICMP.
        "ctrl_enable_icmp_policy" => EnableIcmpPolicy(EnableIcmpPolicy, EnableIcmpPolicy::parse),
        /// Both directions.
        "ctrl_strict_group_mode" => StrictGroupMode(StrictGroupMode, StrictGroupMode::parse),
        /// Observe an interface.
        "ctrl_add_tap_port" => AddTapPort(TapPort, TapPort::parse),
        /// No longer observe an interface.
        "ctrl_del_tap_port" => DelTapPort(TapPort, TapPort::parse_removal),
        /// Be inline through a queue.
        "ctrl_add_nfq_port" => AddNfqPort(NfqPort, NfqPort::parse),
        /// No longer be inline through a queue.
        "ctrl_del_nfq_port" => DelNfqPort(NfqPort, NfqPort::parse_removal),
        /// The node's inline port.
        "ctrl_add_srvc_port" => AddServicePort(ServicePort, ServicePort::parse),
        /// The node's inline port goes.
        "ctrl_del_srvc_port" => DelServicePort(ServicePort, ServicePort::parse),
        /// Be inline between two interfaces, or in quarantine.
        "ctrl_add_port_pair" => AddPortPair(PortPair, PortPair::parse),
        /// No longer be inline between two interfaces.
        "ctrl_del_port_pair" => DelPortPair(PortPair, PortPair::parse_removal),
        /// Manage a workload.
        "ctrl_add_mac" => AddMac(AddMac, AddMac::parse),
        /// No longer manage a workload.
        "ctrl_del_mac" => DelMac(DelMac, DelMac::parse),
        /// Observe or enforce.
        "ctrl_cfg_mac" => CfgMac(CfgMac, CfgMac::parse),
        /// Namespace boundary.
        "ctrl_cfg_nbe" => CfgNbe(CfgNbe, CfgNbe::parse),
        /// Rules.
        "ctrl_cfg_policy" => CfgPolicy(Policy, Policy::parse),
        /// Addresses for which policy has been delivered.
        "ctrl_cfg_policy_addr" => CfgPolicyAddr(Subnets<Subnet>, <Subnets<Subnet>>::parse),
        /// What is internal; none: everything.
        "ctrl_cfg_internal_net" => CfgInternalNet(Subnets<Subnet>, <Subnets<Subnet>>::parse),
        /// Addresses with a meaning.
        "ctrl_cfg_specip_net" =>
            CfgSpecialNet(Subnets<SpecialSubnet>, <Subnets<SpecialSubnet>>::parse),
        /// Addresses of a name.
        "ctrl_cfg_set_fqdn" => CfgSetFqdn(SetFqdn, SetFqdn::parse),
        /// Names that go.
        "ctrl_cfg_del_fqdn" => CfgDelFqdn(DelFqdn, DelFqdn::parse),
        /// Sensors of workloads.
        "ctrl_cfg_dlp" => CfgDlp(CfgDlp, CfgDlp::parse),
        /// Workloads without sensors.
        "ctrl_cfg_dlpmac" => CfgDlpMac(CfgDlpMac, CfgDlpMac::parse),
        /// A detector.
        "ctrl_bld_dlp" => BuildDlp(BuildDlp, BuildDlp::parse),
        /// Who shares a detector.
        "ctrl_bld_dlpmac" => BuildDlpMac(BuildDlpMac, BuildDlpMac::parse),
        /// Asks for [`MacStats`](crate::MacStats).
        "ctrl_stats_macs" => StatsMacs(StatsMacs, StatsMacs::parse),
        /// Ends sessions.
        "ctrl_clear_session" => ClearSession(ClearSession, ClearSession::parse),
        /// Ours: the bridge is here; asks for [`Status`](crate::ext::Status).
        "ctrl_outrider_hello" => OutriderHello(Hello, Hello::parse),
        /// Ours: a batch is stored.
        "ctrl_outrider_ack" => OutriderAck(Ack, Ack::parse),
        /// Ours: packets are to be captured; asks for [`CaptureReply`](crate::ext::CaptureReply).
        "ctrl_outrider_capture" => OutriderCapture(CaptureOrder, CaptureOrder::parse),
        /// Ours: no longer.
        "ctrl_outrider_capture_stop" => OutriderCaptureStop(CaptureStop, CaptureStop::parse),
        /// Ours: the proxy is to finish and end.
        "ctrl_outrider_stop" => OutriderStop(Stop, Stop::parse),
    }
}

/// One member of a request datagram.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Its name.
    pub key: Box<str>,
    /// What it asks for. An error concerns this member only: it is ignored and counted, those
    /// before and after it hold.
    pub request: Result<Request, WireError>,
}

impl Request {
    /// Reads a datagram: usually one request, but several run in order. An array says nothing.
    ///
    /// # Errors
    /// [`WireError::TooLong`], [`WireError::Json`], [`WireError::Nesting`], [`WireError::TooMany`]:
    /// nothing of the datagram holds.
    pub fn parse_datagram(datagram: &[u8]) -> Result<Vec<Command>, WireError> {
        let members = fields::members(datagram)?;
        let commands = members.into_iter().map(|(key, value)| {
            let request = Self::parse(&key, Fields::of(&value));
            Command { key: key.into(), request }
        });
        Ok(commands.collect())
    }

    /// The datagram, byte for byte as the agent's encoder writes it.
    ///
    /// # Errors
    /// [`WireError::TooLong`] if it has to be split ([`crate::chunk`]).
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let json = self.json()?;
        if json.len() > MAX_REQUEST { Err(WireError::TooLong(json.len())) } else { Ok(json) }
    }
}
