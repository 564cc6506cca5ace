//! Which endpoints are known to be servers.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
};

use outrider_model::IpProto;

/// Endpoints that answered before, up to a number of them; the oldest go first.
#[derive(Debug)]
pub(crate) struct Servers {
    known: HashSet<(IpProto, SocketAddr)>,
    order: VecDeque<(IpProto, SocketAddr)>,
    max: usize,
}

impl Servers {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), max: max.max(1) }
    }

    pub(crate) fn learn(&mut self, proto: IpProto, server: SocketAddr) {
        if !self.known.insert((proto, server)) {
            return;
        }
        self.order.push_back((proto, server));
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether the sender of the first packet that was seen of a flow is its server.
    pub(crate) fn sent(&self, proto: IpProto, src: SocketAddr, dst: SocketAddr) -> bool {
        let known = |end| self.known.contains(&(proto, end));
        match (known(src), known(dst)) {
            (true, false) => return true,
            (false, true) => return false,
            _ => {}
        }
        match proto {
            IpProto::TCP => src.port() < dst.port(),
            IpProto::UDP if NAMES.contains(&dst.port()) => false,
            IpProto::UDP if NAMES.contains(&src.port()) => true,
            IpProto::UDP => src.port() < FIRST_FREE && dst.port() >= FIRST_FREE,
            _ => false,
        }
    }
}

/// Ports of UDP that only servers have: DNS, DHCP, mDNS.
const NAMES: [u16; 3] = [53, 67, 5353];
/// Ports from here on may be a client's.
const FIRST_FREE: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn end(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn what_answered_before_is_a_server() {
        let mut servers = Servers::new(2);
        assert!(!servers.sent(IpProto::TCP, end(9000), end(8000)));
        servers.learn(IpProto::TCP, end(9000));
        assert!(servers.sent(IpProto::TCP, end(9000), end(8000)));
        for port in 1..=2 {
            servers.learn(IpProto::TCP, end(port));
        }
        assert!(!servers.sent(IpProto::TCP, end(9000), end(8000)), "the oldest went");
    }

    #[test]
    fn ports_speak_where_nothing_is_known() {
        let servers = Servers::new(2);
        let udp = |src, dst| servers.sent(IpProto::UDP, end(src), end(dst));
        assert!(udp(53, 40_000) && udp(123, 40_000) && udp(67, 68));
        assert!(!udp(40_000, 53) && !udp(123, 123) && !udp(5000, 6000) && !udp(68, 67));
        assert!(servers.sent(IpProto::TCP, end(80), end(40_000)));
    }
}
