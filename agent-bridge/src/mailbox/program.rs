//! What a proxy is told, as datagrams: everything after it connects, and only what changed later.

use std::{io, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use outrider_learn::CompiledPolicy;
use outrider_model::{MacAddr, Mode};
use outrider_wire::{
    ChunkFlags, Directions, PolicyCommand, WireError, chunk,
    ext::{Ack, CaptureOrder, CaptureStop, Hello, Instance, Stop},
    limits,
    request::{
        AddMac, CfgMac, CfgNbe, ClearSession, DelMac, DetectUnmanaged, DisableNetPolicy,
        EnableIcmpPolicy, KeepAlive, NfqPort, ParentIp, Policy, Request, SetDebug, SpecialIp,
        SpecialSubnet, StatsMacs, StrictGroupMode, Subnet, Subnets, SysConf, TapPort,
    },
};

use super::{link::Question, receive::BatchId, rules, watch::Workload};

/// The interface a pod's traffic is on; a proxy inside the pod takes it as a hint.
pub(crate) const INTERFACE: &str = "eth0";
/// The proxy's own namespace, since it lives in the pod's.
const NAMESPACE: &str = "/proc/self/ns/net";

/// What is compiled has to fit a proxy, with the rules that are in the lists of both families.
const _: () = assert!(
    outrider_learn::MAX_COMPILED + 2 * outrider_learn::MAX_GROUP_RULES <= limits::MAX_RULES
        && limits::MAX_RULES == outrider_policy::MAX_RULES
);

/// What one proxy is to have.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Counts changes, over all workloads.
    pub generation: u64,
    /// The pod.
    pub workload: Arc<Workload>,
    /// Its rules, and how far they may go.
    pub policy: Arc<CompiledPolicy>,
    /// The rules are the proxy's own: it goes on with those that it has.
    pub keeps_rules: bool,
    /// What counts as internal.
    pub internal: Arc<[IpNet]>,
    /// Addresses with a meaning: those of nodes, and their ends of tunnels.
    pub special: Arc<[(IpAddr, SpecialIp)]>,
    /// Every workload that has been given a policy.
    pub policy_addrs: Arc<[IpAddr]>,
}

impl Desired {
    /// Whether a proxy that has `self` lacks nothing of `other`.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.workload == other.workload
            && self.policy == other.policy
            && self.keeps_rules == other.keeps_rules
            && self.internal == other.internal
            && self.special == other.special
            && self.policy_addrs == other.policy_addrs
    }
}

type Datagrams = io::Result<Vec<Vec<u8>>>;

/// Everything, in the order in which a data path is programmed from nothing.
///
/// # Errors
/// When something does not fit a datagram.
pub fn everything(desired: &Desired) -> Datagrams {
    let mut out = vec![Request::SetDebug(SetDebug { categories: Vec::new().into() }).encode()];
    out.extend(split(chunk::split(&internal(desired), Request::CfgInternalNet)));
    out.extend(split(chunk::split(&special(desired), Request::CfgSpecialNet)));
    out.extend(attach(desired).iter().map(Request::encode));
    let macs = vec![desired.workload.mac].into();
    out.push(Request::CfgNbe(CfgNbe { macs, nbe: Some(false) }).encode());
    if !desired.keeps_rules {
        out.extend(split(chunk::split(&policy(desired, PolicyCommand::ADD), Request::CfgPolicy)));
    }
    out.extend(split(chunk::split(&policy_addrs(desired), Request::CfgPolicyAddr)));
    let switches = [
        Request::RefreshApp,
        Request::SysConf(SysConf::new(false)),
        Request::DisableNetPolicy(DisableNetPolicy::new(false)),
        Request::DetectUnmanaged(DetectUnmanaged::new(false)),
        Request::EnableIcmpPolicy(EnableIcmpPolicy::new(true, true)),
        Request::StrictGroupMode(StrictGroupMode::new(false)),
    ];
    out.extend(switches.iter().map(Request::encode));
    collect(out)
}

/// What brings a proxy that has `old` to `new`; nothing if they say the same.
///
/// # Errors
/// When something does not fit a datagram.
pub fn difference(old: &Desired, new: &Desired) -> Datagrams {
    if old.workload != new.workload {
        return everything(new);
    }
    let mut out = Vec::new();
    if old.internal != new.internal {
        out.extend(split(chunk::split(&internal(new), Request::CfgInternalNet)));
    }
    if old.special != new.special {
        out.extend(split(chunk::split(&special(new), Request::CfgSpecialNet)));
    }
    if old.policy.mode != new.policy.mode {
        out.extend(attach(new).iter().map(Request::encode));
    }
    let is_news = old.policy.spec != new.policy.spec || old.keeps_rules;
    if is_news && !new.keeps_rules {
        out.extend(split(chunk::split(&policy(new, PolicyCommand::MODIFY), Request::CfgPolicy)));
    }
    if old.policy_addrs != new.policy_addrs {
        out.extend(split(chunk::split(&policy_addrs(new), Request::CfgPolicyAddr)));
    }
    collect(out)
}

/// The pod is gone: its proxy, if it still lives, is to let go.
///
/// # Errors
/// When something does not fit a datagram.
pub fn farewell(desired: &Desired) -> Datagrams {
    let port = if desired.policy.mode == Mode::Protect {
        Request::DelNfqPort(NfqPort { epmac: None, ..queue(desired) })
    } else {
        Request::DelTapPort(tap(None))
    };
    let gone = DelMac { iface: INTERFACE.into(), mac: desired.workload.mac };
    collect(
        [port, Request::DelMac(gone)]
            .iter()
            .map(Request::encode)
            .collect(),
    )
}

/// Asks for a sign of life.
///
/// # Errors
/// Never, in fact; so for all below.
pub fn keep_alive(seq_num: u32) -> io::Result<Vec<u8>> {
    Request::KeepAlive(KeepAlive { seq_num })
        .encode()
        .map_err(unsendable)
}

/// Says who we are and that we acknowledge.
///
/// # Errors
/// See [`keep_alive`].
pub fn hello() -> io::Result<Vec<u8>> {
    Request::OutriderHello(Hello::default())
        .encode()
        .map_err(unsendable)
}

/// Says that a batch is stored.
///
/// # Errors
/// See [`keep_alive`].
pub fn ack(batch: BatchId) -> io::Result<Vec<u8>> {
    let ack = Ack { instance: Instance(batch.instance), seq: batch.seq };
    Request::OutriderAck(ack).encode().map_err(unsendable)
}

/// Has packets captured into the pipe that goes along.
///
/// # Errors
/// When the filter is longer than any may be; see [`keep_alive`].
pub fn capture(order: &CaptureOrder) -> io::Result<Vec<u8>> {
    Request::OutriderCapture(order.clone())
        .encode()
        .map_err(unsendable)
}

/// Ends a capture.
///
/// # Errors
/// See [`keep_alive`].
pub fn stop_capture(id: Instance) -> io::Result<Vec<u8>> {
    Request::OutriderCaptureStop(CaptureStop { id })
        .encode()
        .map_err(unsendable)
}

/// Has this run of a proxy finish and end; only for one that announces that it knows how.
///
/// # Errors
/// See [`keep_alive`].
pub fn stop(instance: Instance) -> io::Result<Vec<u8>> {
    Request::OutriderStop(Stop { instance })
        .encode()
        .map_err(unsendable)
}

/// Asks for the open flows.
///
/// # Errors
/// See [`keep_alive`].
pub fn list_sessions() -> io::Result<Vec<u8>> {
    Request::ListSession.encode().map_err(unsendable)
}

/// Asks for the rate meters.
///
/// # Errors
/// See [`keep_alive`].
pub fn list_meters() -> io::Result<Vec<u8>> {
    Request::ListMeter.encode().map_err(unsendable)
}

/// Asks what one datagram answers; `mac` is the workload's.
///
/// # Errors
/// See [`keep_alive`].
pub fn ask(question: Question, mac: MacAddr) -> io::Result<Vec<u8>> {
    let request = match question {
        Question::SessionCount => Request::CountSession,
        Question::Counters => Request::CounterDevice,
        Question::WorkloadStats => Request::StatsMacs(StatsMacs { macs: vec![mac].into() }),
        Question::DeviceStats => Request::StatsDevice,
    };
    request.encode().map_err(unsendable)
}

/// Has a flow ended, or all if `id` is 0.
///
/// # Errors
/// See [`keep_alive`].
pub fn clear_session(id: u32) -> io::Result<Vec<u8>> {
    Request::ClearSession(ClearSession { filter_id: id })
        .encode()
        .map_err(unsendable)
}

/// Observed in Discover and Monitor, inline in Protect.
fn attach(desired: &Desired) -> Vec<Request> {
    let mac = desired.workload.mac;
    let pip = |ip: &IpAddr| ParentIp { ip: (*ip).into() };
    let pips: Vec<_> = desired.workload.addresses.iter().map(pip).collect();
    let managed = Request::AddMac(AddMac {
        iface: INTERFACE.into(),
        mac,
        pips: pips.into(),
        // Of our own making: no interface has it.
        is_pod: mac == crate::pods::describe::mac(&desired.workload.uid),
        ..AddMac::default()
    });
    let observed = desired.policy.mode != Mode::Protect;
    let configured =
        Request::CfgMac(CfgMac { macs: vec![mac].into(), tap: Some(observed), apps: None });
    if observed {
        let unqueued = NfqPort { epmac: None, ..queue(desired) };
        vec![
            Request::AddTapPort(tap(Some(mac))),
            Request::DelNfqPort(unqueued),
            managed,
            configured,
        ]
    } else {
        vec![
            Request::DelTapPort(tap(None)),
            managed,
            Request::AddNfqPort(queue(desired)),
            configured,
        ]
    }
}

fn tap(epmac: Option<MacAddr>) -> TapPort {
    TapPort { netns: NAMESPACE.into(), iface: INTERFACE.into(), epmac }
}

fn queue(desired: &Desired) -> NfqPort {
    NfqPort {
        netns: NAMESPACE.into(),
        iface: INTERFACE.into(),
        epmac: Some(desired.workload.mac),
        ..NfqPort::default()
    }
}

fn policy(desired: &Desired, command: PolicyCommand) -> Policy {
    let (rules, rules6) = rules::to_wire(&desired.policy.spec.rules);
    let directions = Directions::default()
        .with(Directions::EGRESS, desired.policy.spec.outbound)
        .with(Directions::INGRESS, desired.policy.spec.inbound);
    Policy {
        command,
        chunk: ChunkFlags::WHOLE,
        default_action: desired.policy.spec.default_action.into(),
        directions,
        macs: vec![desired.workload.mac].into(),
        rules: rules.into(),
        rules6,
        grace: Some(desired.policy.spec.grace),
    }
}

fn internal(desired: &Desired) -> Subnets<Subnet> {
    subnets(
        desired
            .internal
            .iter()
            .map(|network| (*network, Subnet::from(*network))),
    )
}

fn special(desired: &Desired) -> Subnets<SpecialSubnet> {
    subnets(desired.special.iter().map(|(address, kind)| {
        let network = IpNet::from(*address);
        (network, SpecialSubnet::new(network, kind.clone()))
    }))
}

fn policy_addrs(desired: &Desired) -> Subnets<Subnet> {
    let networks = desired
        .policy_addrs
        .iter()
        .map(|address| IpNet::from(*address));
    subnets(networks.map(|network| (network, Subnet::from(network))))
}

fn subnets<S>(networks: impl Iterator<Item = (IpNet, S)>) -> Subnets<S> {
    let (v4, v6): (Vec<_>, Vec<_>) = networks.partition(|(network, _)| network.addr().is_ipv4());
    let entries = |of: Vec<(IpNet, S)>| of.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>();
    Subnets { chunk: ChunkFlags::WHOLE, subnets: entries(v4).into(), subnets6: entries(v6) }
}

type Encoded = Result<Vec<u8>, WireError>;

fn split(datagrams: Result<Vec<Vec<u8>>, WireError>) -> Vec<Encoded> {
    match datagrams {
        Ok(datagrams) => datagrams.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

fn collect(encoded: Vec<Encoded>) -> Datagrams {
    encoded
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(unsendable)
}

fn unsendable(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
