//! The state as requests that would bring it about again: what is kept on disk.

use outrider_model::MacAddr;
use outrider_policy::{IpNet, SpecialKind};
use outrider_wire::{
    ChunkFlags, PolicyCommand, WireError,
    chunk::split,
    request::{
        CfgMac, CfgNbe, DetectUnmanaged, DisableNetPolicy, EnableIcmpPolicy, Policy, PortPair,
        Request, SetFqdn, SpecialIp, SpecialSubnet, StrictGroupMode, Subnet, Subnets,
    },
};

use super::{
    State,
    endpoint::{Endpoint, Port},
    view::Law,
};

impl State {
    /// The requests, as datagrams; none if nobody governs the workload. Only what the last policy
    /// that compiled needs is in them.
    pub(crate) fn journal(&self) -> Result<Vec<Vec<u8>>, WireError> {
        let Some((mac, endpoint)) = self.endpoints.governing() else { return Ok(Vec::new()) };
        let mut datagrams = Vec::new();
        for request in self.small_requests(mac, endpoint) {
            datagrams.push(request.encode()?);
        }
        self.append_networks(&mut datagrams)?;
        match &endpoint.good {
            Law::Default => {}
            Law::Open => datagrams.push(removal(mac).encode()?),
            Law::Rules(policy) => datagrams.extend(split(&**policy, Request::CfgPolicy)?),
        }
        Ok(datagrams)
    }

    fn small_requests(&self, mac: MacAddr, endpoint: &Endpoint) -> Vec<Request> {
        let network = &self.network;
        let macs = || [mac].into_iter().collect();
        let mut requests = vec![
            Request::DisableNetPolicy(DisableNetPolicy::new(network.disabled)),
            Request::DetectUnmanaged(DetectUnmanaged::new(network.detect_unmanaged)),
            Request::EnableIcmpPolicy(EnableIcmpPolicy::new(network.icmp_policy)),
            Request::StrictGroupMode(StrictGroupMode::new(network.strict)),
            Request::AddMac(endpoint.added.clone()),
            Request::CfgMac(CfgMac { macs: macs(), tap: endpoint.tap, apps: None }),
            Request::CfgNbe(CfgNbe { macs: macs(), nbe: Some(endpoint.boundary) }),
        ];
        for (port, port_use) in self.endpoints.quarantine_ports() {
            let Port::Pair(vex_iface, vin_iface) = port.clone() else { continue };
            let (epmac, quar) = (port_use.mac, Some(true));
            requests.push(Request::AddPortPair(PortPair { vex_iface, vin_iface, epmac, quar }));
        }
        requests
    }

    fn append_networks(&self, datagrams: &mut Vec<Vec<u8>>) -> Result<(), WireError> {
        let network = &self.network;
        let internal = families(
            network
                .internal
                .iter()
                .map(|net| (*net, Subnet::from(*net))),
        );
        datagrams.extend(split(&internal, Request::CfgInternalNet)?);
        let special = network.special.iter();
        let special = special.map(|(net, kind)| (*net, SpecialSubnet::new(*net, word(*kind))));
        datagrams.extend(split(&families(special), Request::CfgSpecialNet)?);
        let addrs = network.policy_addrs.iter().map(|ip| IpNet::from(*ip));
        let addrs = families(addrs.map(|net| (net, Subnet::from(net))));
        datagrams.extend(split(&addrs, Request::CfgPolicyAddr)?);
        for (name, addresses) in network.names.iter() {
            let addresses: Vec<_> = addresses.collect();
            for some in addresses.chunks(ADDRESSES_A_REQUEST) {
                let addresses = some.iter().map(|ip| (*ip).into()).collect();
                let vhost = network.names.vhost(name);
                let name = name.as_str().to_owned();
                let request = Request::CfgSetFqdn(SetFqdn { name, addresses, vhost });
                datagrams.push(request.encode()?);
            }
        }
        Ok(())
    }
}

fn removal(mac: MacAddr) -> Request {
    Request::CfgPolicy(Policy {
        command: PolicyCommand::DELETE,
        chunk: ChunkFlags::WHOLE,
        macs: [mac].into_iter().collect(),
        ..Policy::default()
    })
}

fn families<S>(nets: impl Iterator<Item = (IpNet, S)>) -> Subnets<S> {
    let (v4, v6): (Vec<_>, Vec<_>) = nets.partition(|(net, _)| net.addr().is_ipv4());
    Subnets {
        chunk: ChunkFlags::WHOLE,
        subnets: v4.into_iter().map(|(_, subnet)| subnet).collect(),
        subnets6: v6.into_iter().map(|(_, subnet)| subnet).collect(),
    }
}

fn word(kind: SpecialKind) -> SpecialIp {
    match kind {
        SpecialKind::Tunnel => SpecialIp::Tunnel,
        SpecialKind::Service => SpecialIp::Service,
        SpecialKind::Host => SpecialIp::Host,
        SpecialKind::Device => SpecialIp::Device,
        SpecialKind::Unmanaged => SpecialIp::Unmanaged,
        SpecialKind::ServiceExternal => SpecialIp::ServiceExternal,
    }
}

/// Addresses of a name in one request: 48 bytes each at most, so that it fits a datagram.
const ADDRESSES_A_REQUEST: usize = 128;
