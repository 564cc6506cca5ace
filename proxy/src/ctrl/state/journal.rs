//! The state as requests that would bring it about again: what is kept on disk.

use std::sync::Arc;

use outrider_model::MacAddr;
use outrider_policy::{IpNet, Network, SpecialKind};
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

/// Everything that the requests are made of; cheap to take, so that they can be written elsewhere.
#[derive(Debug)]
pub(crate) struct Journal {
    small: Vec<Request>,
    network: Arc<Network>,
    mac: MacAddr,
    law: Law,
}

impl State {
    /// What to keep; `None` if nobody governs the workload. Of policies, the last that compiled.
    #[must_use]
    pub(crate) fn journal(&self) -> Option<Journal> {
        let (mac, endpoint) = self.endpoints.governing()?;
        Some(Journal {
            small: self.small_requests(mac, endpoint),
            network: Arc::clone(&self.network),
            mac,
            law: endpoint.good.clone(),
        })
    }

    fn small_requests(&self, mac: MacAddr, endpoint: &Endpoint) -> Vec<Request> {
        let network = &self.network;
        let macs = || [mac].into_iter().collect();
        let mut requests = vec![
            Request::DisableNetPolicy(DisableNetPolicy::new(network.disabled)),
            Request::DetectUnmanaged(DetectUnmanaged::new(network.detect_unmanaged)),
            Request::EnableIcmpPolicy(EnableIcmpPolicy::new(
                network.icmp_policy,
                network.ip_policy,
            )),
            Request::StrictGroupMode(StrictGroupMode::new(network.strict)),
            Request::AddMac(endpoint.added.clone()),
            Request::CfgMac(CfgMac { macs: macs(), tap: endpoint.tap, apps: None }),
            Request::CfgNbe(CfgNbe { macs: macs(), nbe: Some(endpoint.boundary) }),
        ];
        for (port, port_use) in self.endpoints.quarantine_ports() {
            let Port::Pair { outer: vex_iface, inner: vin_iface } = port.clone() else { continue };
            let (epmac, quar) = (port_use.mac, Some(true));
            requests.push(Request::AddPortPair(PortPair { vex_iface, vin_iface, epmac, quar }));
        }
        requests
    }
}

impl Journal {
    /// The requests as datagrams; takes a while for many rules.
    pub(crate) fn datagrams(&self) -> Result<Vec<Vec<u8>>, WireError> {
        let small = self.small.iter().map(Request::encode);
        let mut datagrams = small.collect::<Result<Vec<_>, _>>()?;
        self.append_networks(&mut datagrams)?;
        self.append_names(&mut datagrams)?;
        match &self.law {
            Law::Default => {}
            Law::Open => datagrams.push(removal(self.mac).encode()?),
            Law::Rules(policy) => datagrams.extend(split(&**policy, Request::CfgPolicy)?),
        }
        Ok(datagrams)
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
        Ok(())
    }

    fn append_names(&self, datagrams: &mut Vec<Vec<u8>>) -> Result<(), WireError> {
        let names = &self.network.names;
        for (name, addresses) in names.iter() {
            let addresses: Vec<_> = addresses.collect();
            for some in addresses.chunks(ADDRESSES_A_REQUEST) {
                let addresses = some.iter().map(|ip| (*ip).into()).collect();
                let (vhost, name) = (names.vhost(name), name.as_str().to_owned());
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
