//! What the agent has configured: requests in, effects out. No sockets, no clock.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use outrider_model::{MacAddr, Mode};
use outrider_policy::{Name, Network};
use outrider_wire::{
    KeepAlive, PolicyCommand, WireError,
    chunk::{Assembler, Chunked},
    ext,
    request::{
        CfgMac, DelFqdn, ListeningPort, Policy, Request, SetFqdn, SpecialSubnet, Subnet, Subnets,
    },
};

use self::endpoint::Endpoints;
use super::policy;

mod endpoint;
mod journal;
mod sensors;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use endpoint::{Port, PortUse};
pub(crate) use journal::Journal;
pub(crate) use sensors::SensorTotals;
pub(crate) use view::{Desired, Law};

/// What a request asks of others than the state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Send this back at once.
    Alive(KeepAlive),
    /// Send back what telemetry knows.
    Query(Query),
    /// Compile and swap: what is in force is no longer what is wanted.
    PolicyChanged,
    /// Traffic is to be taken from other places than before.
    PortsChanged,
    /// Ports that the workload listens on.
    Listens(Vec<ListeningPort>),
    /// Send the table of listening ports, changed or not.
    RefreshApps,
    /// End the flow of this number, or all for 0.
    ClearSessions(u32),
    /// Report what the flows did until now: the workload is no longer managed.
    LastReport,
    /// Log these categories besides the usual.
    Debug(BTreeSet<String>),
    /// Other sensors are configured than before.
    SensorsChanged(SensorTotals),
    /// Our bridge is there.
    Hello(ext::Hello),
    /// Our bridge has stored a batch.
    Ack(ext::Ack),
    /// Packets are to be captured.
    Capture(ext::CaptureOrder),
    /// No longer.
    StopCapture(ext::Instance),
    /// This run of the proxy is to finish and end.
    Stop(ext::Instance),
}

/// Questions that telemetry answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Query {
    /// All sessions.
    Sessions,
    /// All meters.
    Meters,
    /// How many sessions.
    SessionCount,
    /// Counters.
    DeviceCounter,
    /// Statistics of everything.
    DeviceStats,
    /// Statistics of workloads, ours among them or not.
    MacStats {
        /// Whether one of them is registered, which the answer shows.
        known: bool,
        /// Whether our traffic is asked for.
        ours: bool,
    },
}

/// Why a request changed nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Ignored {
    /// The request itself, or its sequence of chunks, is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It names no workload.
    #[error("no workload is named")]
    NoWorkload,
    /// A policy command that is neither add, modify nor delete.
    #[error("policy command {0} is not known")]
    Command(u32),
    /// A name that is none, or one too many.
    #[error(transparent)]
    Name(#[from] outrider_policy::PolicyError),
    /// More endpoints or ports than are kept.
    #[error("more {0} than are kept")]
    Full(&'static str),
}

impl Ignored {
    /// The closed label of logs and metrics.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.reason(),
            Self::NoWorkload => "no-workload",
            Self::Command(_) => "policy-command",
            Self::Name(error) => error.reason(),
            Self::Full(_) => "full",
        }
    }
}

/// Everything that was configured, in force or on its way there.
#[derive(Debug)]
pub(crate) struct State {
    endpoints: Endpoints,
    network: Arc<Network>,
    default_mode: Option<Mode>,
    xff: bool,
    policies: Assembler<Policy>,
    sensors: sensors::Pending,
    internal: Assembler<Subnets<Subnet>>,
    policy_addrs: Assembler<Subnets<Subnet>>,
    special: Assembler<Subnets<SpecialSubnet>>,
}

/// What a request led to.
pub(crate) type Outcome = Result<Vec<Effect>, Ignored>;

impl State {
    /// The state of a proxy that nobody has configured.
    #[must_use]
    pub(crate) fn new(own: &[MacAddr], default_mode: Option<Mode>) -> Self {
        Self {
            endpoints: Endpoints::new(own),
            network: Arc::default(),
            default_mode,
            xff: false,
            policies: Assembler::default(),
            sensors: sensors::Pending::default(),
            internal: Assembler::default(),
            policy_addrs: Assembler::default(),
            special: Assembler::default(),
        }
    }

    /// The same, of a proxy that relays for no pod: it stands for the workload whose traffic it gets
    /// by ports, if its own interfaces are not registered.
    #[must_use]
    pub(crate) fn adopting(mut self) -> Self {
        self.endpoints.set_adopts();
        self
    }

    /// The ports that have to be opened, since they are not the pod's own interfaces.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (Port, PortUse)> + '_ {
        self.endpoints.elsewhere()
    }

    /// Carries out one request. An error means that nothing has changed.
    pub(crate) fn apply(&mut self, request: Request) -> Outcome {
        match request {
            Request::KeepAlive(asked) => {
                Ok(vec![Effect::Alive(KeepAlive { seq_num: asked.seq_num })])
            }
            Request::StatsMacs(asked) => {
                Ok(vec![Effect::Query(self.endpoints.stats_query(&asked.macs))])
            }
            Request::StatsDevice => query(Query::DeviceStats),
            Request::CounterDevice => query(Query::DeviceCounter),
            Request::CountSession => query(Query::SessionCount),
            Request::ListSession => query(Query::Sessions),
            Request::ListMeter => query(Query::Meters),
            Request::RefreshApp => Ok(vec![Effect::RefreshApps]),
            Request::ClearSession(asked) => Ok(vec![Effect::ClearSessions(asked.filter_id)]),
            Request::OutriderHello(hello) => Ok(vec![Effect::Hello(hello)]),
            Request::OutriderAck(ack) => Ok(vec![Effect::Ack(ack)]),
            Request::OutriderCapture(order) => Ok(vec![Effect::Capture(order)]),
            Request::OutriderCaptureStop(stop) => Ok(vec![Effect::StopCapture(stop.id)]),
            Request::OutriderStop(stop) => Ok(vec![Effect::Stop(stop.instance)]),
            Request::SetDebug(asked) if asked.categories.is_nil() => Ok(Vec::new()),
            Request::SetDebug(asked) => Ok(vec![Effect::Debug(
                asked
                    .categories
                    .iter()
                    .map(|name| name.to_ascii_lowercase())
                    .collect(),
            )]),
            other => self.configure(other),
        }
    }

    fn configure(&mut self, request: Request) -> Outcome {
        match request {
            Request::SysConf(asked) => {
                self.xff = asked.is_on();
                Ok(Vec::new())
            }
            Request::DisableNetPolicy(asked) => {
                self.switch(asked.is_on(), |network| &mut network.disabled)
            }
            Request::DetectUnmanaged(asked) => {
                self.switch(asked.is_on(), |network| &mut network.detect_unmanaged)
            }
            Request::EnableIcmpPolicy(asked) => {
                let mut effects = self.switch(asked.is_on(), |network| &mut network.icmp_policy)?;
                let all = asked.is_on_for_all();
                effects.extend(self.switch(all, |network| &mut network.ip_policy)?);
                Ok(effects)
            }
            Request::StrictGroupMode(asked) => {
                self.switch(asked.is_on(), |network| &mut network.strict)
            }
            Request::CfgInternalNet(list) => self.set_internal(list),
            Request::CfgPolicyAddr(list) => self.set_policy_addrs(list),
            Request::CfgSpecialNet(list) => self.set_special(list),
            Request::CfgSetFqdn(asked) => self.set_fqdn(&asked),
            Request::CfgDelFqdn(asked) => self.del_fqdn(&asked),
            Request::CfgPolicy(chunk) => self.set_policy(chunk),
            Request::CfgMac(asked) => self.cfg_mac(asked),
            other => self.configure_endpoints(other),
        }
    }

    fn configure_endpoints(&mut self, request: Request) -> Outcome {
        let endpoints = &mut self.endpoints;
        match request {
            Request::AddMac(asked) => sensors::watched(endpoints, |known| known.add(&asked)),
            Request::DelMac(asked) => {
                sensors::watched(endpoints, |known| Ok(known.remove(asked.mac)))
            }
            Request::CfgNbe(asked) => endpoints.set_boundary(&asked),
            Request::AddTapPort(port) => endpoints.add_tap(port),
            Request::DelTapPort(port) => Ok(endpoints.del_tap(port)),
            Request::AddNfqPort(port) => endpoints.add_queue(port),
            Request::DelNfqPort(port) => Ok(endpoints.del_queue(port)),
            Request::AddPortPair(pair) => endpoints.add_pair(pair),
            Request::DelPortPair(pair) => Ok(endpoints.del_pair(pair)),
            asked @ (Request::CfgDlp(_)
            | Request::CfgDlpMac(_)
            | Request::BuildDlp(_)
            | Request::BuildDlpMac(_)) => self.sensors.carry_out(asked, endpoints),
            // A node's inline port: nothing of one pod's proxy.
            _ => Ok(Vec::new()),
        }
    }

    fn switch(&mut self, on: bool, flag: impl Fn(&mut Network) -> &mut bool) -> Outcome {
        let mut network = Network::clone(&self.network);
        let flag = flag(&mut network);
        if *flag == on {
            return Ok(Vec::new());
        }
        *flag = on;
        self.network = Arc::new(network);
        Ok(vec![Effect::PolicyChanged])
    }

    fn set_internal(&mut self, list: Subnets<Subnet>) -> Outcome {
        let Some(whole) = assemble(&mut self.internal, list)? else { return Ok(Vec::new()) };
        let nets = whole
            .subnets
            .iter()
            .chain(&whole.subnets6)
            .filter_map(policy::subnet);
        Arc::make_mut(&mut self.network).internal = nets.collect();
        Ok(vec![Effect::PolicyChanged])
    }

    fn set_policy_addrs(&mut self, list: Subnets<Subnet>) -> Outcome {
        let Some(whole) = assemble(&mut self.policy_addrs, list)? else { return Ok(Vec::new()) };
        let subnets = whole.subnets.iter().chain(&whole.subnets6);
        let addrs: HashSet<_> = subnets.filter_map(|subnet| subnet.ip.0).collect();
        Arc::make_mut(&mut self.network).policy_addrs = addrs;
        Ok(vec![Effect::PolicyChanged])
    }

    fn set_special(&mut self, list: Subnets<SpecialSubnet>) -> Outcome {
        let Some(whole) = assemble(&mut self.special, list)? else { return Ok(Vec::new()) };
        let nets = whole
            .subnets
            .iter()
            .chain(&whole.subnets6)
            .filter_map(policy::special);
        Arc::make_mut(&mut self.network).special = nets.collect();
        Ok(vec![Effect::PolicyChanged])
    }

    /// Adds addresses to a name; without addresses nothing happens at all.
    fn set_fqdn(&mut self, asked: &SetFqdn) -> Outcome {
        let name = Name::new(&asked.name)?;
        let mut addresses = asked.addresses.iter().filter_map(|ip| ip.0).peekable();
        if addresses.peek().is_none() {
            return Ok(Vec::new());
        }
        let mut network = Network::clone(&self.network);
        for address in addresses {
            network.names.add(&name, address)?;
        }
        network.names.set_vhost(&name, asked.vhost)?;
        self.network = Arc::new(network);
        Ok(vec![Effect::PolicyChanged])
    }

    fn del_fqdn(&mut self, asked: &DelFqdn) -> Outcome {
        let names = &mut Arc::make_mut(&mut self.network).names;
        let mut removed = 0_usize;
        for name in asked.names.iter().filter_map(|text| Name::new(text).ok()) {
            removed = removed.saturating_add(usize::from(names.remove(&name)));
        }
        Ok(if removed > 0 { vec![Effect::PolicyChanged] } else { Vec::new() })
    }

    fn set_policy(&mut self, chunk: Policy) -> Outcome {
        if chunk.macs.is_empty() {
            return Err(Ignored::NoWorkload);
        }
        let Some(whole) = assemble(&mut self.policies, chunk)? else { return Ok(Vec::new()) };
        match whole.command {
            PolicyCommand::ADD | PolicyCommand::MODIFY => {
                let macs = whole.macs.clone();
                Ok(self.endpoints.set_law(&macs, &Law::Rules(Arc::new(whole))))
            }
            PolicyCommand::DELETE => Ok(self.endpoints.set_law(&whole.macs, &Law::Open)),
            unknown => Err(Ignored::Command(unknown.0)),
        }
    }

    fn cfg_mac(&mut self, asked: CfgMac) -> Outcome {
        if asked.macs.is_empty() {
            return Err(Ignored::NoWorkload);
        }
        let (ours, changed) = self.endpoints.set_tap(&asked.macs, asked.tap);
        let mut effects = if changed { vec![Effect::PolicyChanged] } else { Vec::new() };
        effects.extend(asked.apps.filter(|_| ours).map(Effect::Listens));
        Ok(effects)
    }
}

fn assemble<C: Chunked>(assembler: &mut Assembler<C>, chunk: C) -> Result<Option<C>, Ignored> {
    Ok(assembler.push(chunk)?)
}

fn query(query: Query) -> Outcome {
    Ok(vec![Effect::Query(query)])
}
