//! Which packets make sessions, and in which direction.

use outrider_model::{Direction, IpProto};
use outrider_packet::Ends;

use crate::identity::Identity;

/// Why a packet belongs to no session. None of these is ever judged or stopped.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Ignored {
    /// It never leaves the pod.
    Loopback,
    /// It is seen a second time, on the interface of its VLAN.
    Tagged,
    /// It came by, but for another machine.
    Foreign,
    /// Neither end is the pod's.
    NotOurs,
    /// It goes to more than one host.
    Shared,
    /// Neighbour discovery, group membership: without it there is no network.
    Neighbours,
    /// An ICMP error, which is about another flow.
    Error,
    /// It begins in a way that nobody here reads.
    Link,
}

impl Ignored {
    /// The closed label of logs and metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Tagged => "tagged",
            Self::Foreign => "foreign",
            Self::NotOurs => "not-ours",
            Self::Shared => "shared",
            Self::Neighbours => "neighbours",
            Self::Error => "icmp-error",
            Self::Link => "link",
        }
    }
}

/// The direction of a flow as the workload sees it, or why it is none of a session.
pub(crate) fn sort(ends: &Ends, pod: &Identity) -> Result<Direction, Ignored> {
    let (client, server) = (ends.client.ip(), ends.server.ip());
    if pod.is_shared(client) || pod.is_shared(server) {
        return Err(Ignored::Shared);
    }
    if let Some(reason) = of_the_network(ends) {
        return Err(reason);
    }
    match (pod.is_local(client), pod.is_local(server)) {
        (true, true) => Err(Ignored::Loopback),
        (false, true) => Ok(Direction::Inbound),
        (true, false) => Ok(Direction::Outbound),
        (false, false) => Err(Ignored::NotOurs),
    }
}

/// The same for a pod behind an interface, whose addresses nobody has to know: the direction is given.
pub(crate) fn beyond(ends: &Ends, direction: Direction) -> Result<Direction, Ignored> {
    let (client, server) = (ends.client.ip(), ends.server.ip());
    let nobody = Identity::default();
    if nobody.is_shared(client) || nobody.is_shared(server) {
        return Err(Ignored::Shared);
    }
    of_the_network(ends).map_or(Ok(direction), Err)
}

fn of_the_network(ends: &Ends) -> Option<Ignored> {
    let [_code, kind] = ends.server.port().to_be_bytes();
    match (ends.proto, kind) {
        (IpProto::IGMP, _) | (IpProto::ICMPV6, 130..=137 | 143) => Some(Ignored::Neighbours),
        (IpProto::ICMP, 3 | 4 | 11 | 12) | (IpProto::ICMPV6, 1..=4) => Some(Ignored::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(client: &str, server: &str, proto: IpProto) -> Result<Direction, Ignored> {
        let pod =
            Identity::new(Vec::new(), ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        let ends = Ends { client: client.parse().unwrap(), server: server.parse().unwrap(), proto };
        sort(&ends, &pod)
    }

    #[test]
    fn the_end_that_is_ours_gives_the_direction() {
        for (client, server, want) in [
            ("10.0.0.9:4000", "10.0.0.2:53", Ok(Direction::Inbound)),
            ("[fd00::2]:4000", "[fd00::9]:53", Ok(Direction::Outbound)),
            ("10.0.0.2:4000", "10.0.0.2:53", Err(Ignored::Loopback)),
            ("127.0.0.1:4000", "10.0.0.2:53", Err(Ignored::Loopback)),
            ("10.0.0.8:4000", "10.0.0.9:53", Err(Ignored::NotOurs)),
        ] {
            assert_eq!(sorted(client, server, IpProto::UDP), want, "{client} > {server}");
        }
    }

    #[test]
    fn what_goes_to_many_or_keeps_the_network_up_is_no_session() {
        for (client, server, proto, want) in [
            ("10.0.0.2:5353", "224.0.0.251:5353", IpProto::UDP, Ignored::Shared),
            ("0.0.0.0:68", "255.255.255.255:67", IpProto::UDP, Ignored::Shared),
            ("[fd00::2]:0", "[ff02::1]:0", IpProto::ICMPV6, Ignored::Shared),
            ("[fd00::9]:0", "[fd00::2]:135", IpProto::ICMPV6, Ignored::Neighbours),
            ("10.0.0.9:0", "10.0.0.2:0", IpProto::IGMP, Ignored::Neighbours),
            ("10.0.0.9:0", "10.0.0.2:259", IpProto::ICMP, Ignored::Error),
            ("[fd00::9]:0", "[fd00::2]:2", IpProto::ICMPV6, Ignored::Error),
        ] {
            assert_eq!(sorted(client, server, proto), Err(want), "{client} > {server}");
        }
        let ping = sorted("10.0.0.9:7", "10.0.0.2:8", IpProto::ICMP);
        assert_eq!(ping, Ok(Direction::Inbound));
    }
}
