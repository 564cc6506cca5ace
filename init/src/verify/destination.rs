//! Addresses to probe: captured by the settings, and with nobody there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::plan::{Family, PortRange};
use crate::settings::{Destinations, Ports, Settings};

/// Nobody listens on the discard port of a documentation address.
pub(super) const PORT: u16 = 9;
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// A documentation address.
pub(super) fn nobody(family: Family) -> IpAddr {
    match family {
        Family::V4 => NOBODY_V4,
        Family::V6 => NOBODY_V6,
    }
}

/// A remote address that the settings capture; none if they capture no documentation address.
pub(super) fn outbound(settings: &Settings, family: Family) -> Option<SocketAddr> {
    let addr = nobody(family);
    let captured = match &settings.outbound_cidrs {
        Destinations::All => true,
        Destinations::Only(list) => list.iter().any(|net| net.contains(&addr)),
    };
    let excluded = settings
        .exclude_outbound_cidrs
        .iter()
        .any(|net| net.contains(&addr));
    let port = port(&settings.outbound_ports, &settings.exclude_outbound_ports, &[])?;
    (captured && !excluded).then_some(SocketAddr::new(addr, port))
}

/// An inbound port that the settings capture.
pub(super) fn inbound_port(settings: &Settings) -> Option<u16> {
    let own = [settings.health_port, settings.inbound_port, settings.outbound_port];
    port(&settings.inbound_ports, &settings.exclude_inbound_ports, &own)
}

/// A captured port, preferably the discard port.
fn port(captured: &Ports, excluded: &[PortRange], own: &[u16]) -> Option<u16> {
    let within = |list: &[PortRange], port: u16| {
        list.iter()
            .any(|range| (range.first..=range.last).contains(&port))
    };
    let usable = |port: &u16| !within(excluded, *port) && !own.contains(port);
    match captured {
        Ports::None => None,
        Ports::All => (PORT..=u16::MAX).find(usable),
        Ports::Only(list) => list
            .iter()
            .flat_map(|range| range.first..=range.last)
            .find(usable),
    }
}

/// The pod's own address: the one it would talk to the world from.
pub(super) fn own_address(family: Family) -> Option<IpAddr> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing; it only chooses a route and a source.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((nobody(family), PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::{inbound_port, outbound};
    use crate::plan::{Family, PortRange};
    use crate::settings::{Ports, Settings};

    #[test]
    fn probes_only_what_is_captured() {
        let mut settings = Settings::default();
        assert_eq!(outbound(&settings, Family::V4).map(|to| to.port()), Some(9));
        settings.exclude_outbound_ports = vec![PortRange { first: 1, last: 100 }];
        assert_eq!(outbound(&settings, Family::V6).map(|to| to.port()), Some(101));
        settings.exclude_outbound_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(outbound(&settings, Family::V4), None);
        settings.outbound_ports = Ports::None;
        assert_eq!(outbound(&settings, Family::V6), None);
    }

    #[test]
    fn never_probes_the_proxys_own_ports() {
        let settings = Settings {
            inbound_ports: Ports::Only(vec![15106.into(), 15120.into(), 80.into()]),
            ..Settings::default()
        };
        assert_eq!(inbound_port(&settings), Some(80));
    }
}
