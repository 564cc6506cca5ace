//! Where a captured connection goes, or why it goes nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use outrider_capture::CaptureMode;
use outrider_model::{Direction, FlowKey, IpProto, names};
use outrider_relay::{Delivery, Source};

use crate::identity::Identity;

/// What a listener knows about one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Who opened it.
    pub peer: SocketAddr,
    /// Where it was meant to go.
    pub original: SocketAddr,
    /// Interface that link-local addresses belong to, if there is one.
    pub scope: u32,
    /// The kind of rule that brought it here.
    pub by: Option<CaptureMode>,
}

/// Why a connection is reset at once. Each of these would otherwise end in a loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// Somebody dialled the listener itself.
    Direct,
    /// It was meant for one of our own ports.
    OwnPort,
    /// Both ends are the same socket address.
    ToItself,
    /// It is our own delivery, come back because a rule of the pod is missing.
    OwnDelivery,
}

/// Finds the flow's key and where to deliver it.
pub(crate) fn route(
    arrival: Arrival,
    direction: Direction,
    identity: &Identity,
    own_ports: &[u16],
) -> Result<(FlowKey, Delivery), Refusal> {
    let Arrival { peer, original, scope, by } = arrival;
    let by = by.ok_or(Refusal::Direct)?;
    if peer == original {
        return Err(Refusal::ToItself);
    }
    if to_own_port(original, direction, identity, own_ports) {
        return Err(Refusal::OwnPort);
    }
    if direction == Direction::Inbound && peer.ip() == delivery_source(peer.ip()) {
        return Err(Refusal::OwnDelivery);
    }
    let key = FlowKey { client: peer, server: original, proto: IpProto::TCP, direction };
    let source = match (direction, by) {
        (Direction::Outbound, _) => Source::Route,
        // The pod's rules leave this source alone. Without it our own dial to the pod's address
        // would be captured again.
        (Direction::Inbound, CaptureMode::Redirect) => {
            Source::Own(SocketAddr::new(delivery_source(original.ip()), 0))
        }
        (Direction::Inbound, CaptureMode::Tproxy) => {
            Source::Borrowed(scoped(SocketAddr::new(peer.ip(), 0), scope))
        }
    };
    Ok((key, Delivery { source, ..Delivery::to(scoped(original, scope)) }))
}

/// A link-local address means nothing without its interface.
fn scoped(addr: SocketAddr, scope: u32) -> SocketAddr {
    match addr {
        SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*addr.ip(), addr.port(), 0, scope).into()
        }
        _ => addr,
    }
}

/// What arrives was meant for this pod, whatever addresses we know of it.
fn to_own_port(
    original: SocketAddr,
    direction: Direction,
    identity: &Identity,
    own_ports: &[u16],
) -> bool {
    let ours = direction == Direction::Inbound || identity.is_local(original.ip());
    ours && own_ports.contains(&original.port())
}

/// The loopback address that inbound deliveries come from, in the family of `ip`.
pub(crate) fn delivery_source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(DELIVERY_V4),
        IpAddr::V6(_) => IpAddr::V6(DELIVERY_V6),
    }
}

/// Every port that must never be relayed to on this pod: the configured ones and the reserved.
#[must_use]
pub(crate) fn guarded_ports(configured: &[u16]) -> Vec<u16> {
    let mut ports = names::OWN_PORTS.to_vec();
    ports.extend(configured.iter().filter(|port| **port != 0));
    ports.sort_unstable();
    ports.dedup();
    ports
}

const DELIVERY_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const DELIVERY_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(peer: &str, original: &str) -> Arrival {
        let (peer, original) = (peer.parse().unwrap(), original.parse().unwrap());
        Arrival { peer, original, scope: 0, by: Some(CaptureMode::Redirect) }
    }

    fn routed(arrival: Arrival, direction: Direction) -> Result<(FlowKey, Delivery), Refusal> {
        let pod = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        route(arrival, direction, &Identity::new(Vec::new(), pod), &guarded_ports(&[]))
    }

    #[test]
    fn delivers_inbound_from_the_exempt_loopback_address_of_the_family() {
        let v4 = routed(arrival("10.0.0.9:4000", "10.0.0.2:80"), Direction::Inbound).unwrap();
        assert_eq!(v4.1.source, Source::Own("127.0.0.6:0".parse().unwrap()));
        let v6 = routed(arrival("[fd00::9]:4000", "[fd00::2]:80"), Direction::Inbound).unwrap();
        assert_eq!(v6.1.source, Source::Own("[::6]:0".parse().unwrap()));
        assert_eq!(v6.1.target, "[fd00::2]:80".parse().unwrap());
    }

    #[test]
    fn delivers_what_a_transparent_socket_took_from_the_clients_address() {
        let by = Some(CaptureMode::Tproxy);
        let v4 = Arrival { by, ..arrival("10.0.0.9:4000", "10.0.0.2:80") };
        let (key, delivery) = routed(v4, Direction::Inbound).unwrap();
        assert_eq!(delivery.source, Source::Borrowed("10.0.0.9:0".parse().unwrap()));
        assert_eq!((delivery.target, key.client), (key.server, v4.peer));
        let link_local = Arrival { by, scope: 3, ..arrival("[fe80::9]:4000", "[fe80::2]:80") };
        let (key, delivery) = routed(link_local, Direction::Inbound).unwrap();
        assert_eq!(delivery.source, Source::Borrowed("[fe80::9%3]:0".parse().unwrap()));
        assert_eq!(delivery.target, "[fe80::2%3]:80".parse().unwrap());
        assert_eq!(key.server, "[fe80::2]:80".parse().unwrap(), "one key, whatever the interface");
    }

    #[test]
    fn dials_outbound_without_a_bound_source() {
        let (key, delivery) =
            routed(arrival("10.0.0.2:4000", "10.0.0.9:80"), Direction::Outbound).unwrap();
        assert_eq!(delivery.source, Source::Route);
        assert_eq!(key.server, delivery.target);
    }

    #[test]
    fn a_workload_that_dials_its_own_address_reaches_itself() {
        assert!(routed(arrival("10.0.0.2:4000", "10.0.0.2:80"), Direction::Outbound).is_ok());
        assert!(routed(arrival("10.0.0.2:4000", "10.0.0.2:80"), Direction::Inbound).is_ok());
    }

    #[test]
    fn refuses_what_would_loop() {
        let direct = Arrival { by: None, ..arrival("10.0.0.9:1", "10.0.0.2:15106") };
        assert_eq!(routed(direct, Direction::Inbound).unwrap_err(), Refusal::Direct);
        for (peer, original, refusal) in [
            ("10.0.0.9:4000", "10.0.0.2:15106", Refusal::OwnPort),
            ("10.0.0.9:4000", "[fd00::2]:15153", Refusal::OwnPort),
            ("10.0.0.2:4000", "127.0.0.1:15100", Refusal::OwnPort),
            ("10.0.0.2:80", "10.0.0.2:80", Refusal::ToItself),
            ("127.0.0.6:4000", "10.0.0.2:80", Refusal::OwnDelivery),
            ("[::6]:4000", "[fd00::2]:80", Refusal::OwnDelivery),
        ] {
            let got = routed(arrival(peer, original), Direction::Inbound).unwrap_err();
            assert_eq!(got, refusal, "{peer} > {original}");
        }
    }

    #[test]
    fn the_same_port_of_somebody_else_is_no_loop() {
        assert!(routed(arrival("10.0.0.2:4000", "10.0.0.9:15106"), Direction::Outbound).is_ok());
    }

    #[test]
    fn guards_configured_ports_too() {
        assert!(guarded_ports(&[9000, 15_106, 0]).contains(&9000));
        assert_eq!(guarded_ports(&[15_106, 0]).len(), names::OWN_PORTS.len());
    }
}
