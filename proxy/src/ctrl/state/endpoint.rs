//! The workloads that were registered, by MAC. Those of this pod have traffic; a node-level agent
//! may register others, which are kept so that queries about them have the usual answers.

use std::{collections::BTreeMap, sync::Arc};

use outrider_model::MacAddr;
use outrider_wire::request::{AddMac, CfgNbe, NfqPort, PortPair, TapPort};

use super::{
    Effect, Ignored, Outcome, Query,
    sensors::{SensorTotals, Sensors},
    view::Law,
};

/// One registered workload.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Observe only; `None` until the agent says.
    pub(super) tap: Option<bool>,
    /// Whether the boundary of its namespace is enforced.
    pub(super) boundary: bool,
    /// Its policy, in force or on its way there.
    pub(super) law: Law,
    /// The last policy that compiled.
    pub(super) good: Law,
    /// How it was registered.
    pub(super) added: AddMac,
    /// Its sensors.
    sensors: Sensors,
}

/// Where the agent wants traffic to be taken from. For the interfaces of its own pod a sidecar is in
/// its place already: what counts of those is whether there is any, and quarantine.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Port {
    /// An interface to look at, in the network namespace of that path; the path of a port of this
    /// pod is not kept.
    Tap { netns: String, iface: String },
    /// The packets of an interface that wait in a queue of that namespace.
    Queue { netns: String, iface: String },
    /// Two interfaces to join.
    Pair { outer: String, inner: String },
}

/// What a port is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PortUse {
    /// The workload.
    pub(crate) mac: Option<MacAddr>,
    /// Nothing passes.
    pub(crate) quarantined: bool,
    /// Number of the queue.
    pub(crate) queue: u32,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Endpoints {
    own: Vec<MacAddr>,
    known: BTreeMap<MacAddr, Endpoint>,
    ports: BTreeMap<Port, PortUse>,
    /// A port of ours was there once: without any, nothing is observed.
    had_port: bool,
    /// The proxy relays for no pod, so it may stand for one whose traffic it gets by ports.
    adopts: bool,
}

impl Endpoints {
    pub(super) fn new(own: &[MacAddr]) -> Self {
        Self {
            own: own.to_vec(),
            known: BTreeMap::new(),
            ports: BTreeMap::new(),
            had_port: false,
            adopts: false,
        }
    }

    pub(super) fn set_adopts(&mut self) {
        self.adopts = true;
    }

    pub(super) fn set_own(&mut self, own: &[MacAddr]) {
        self.own = own.to_vec();
    }

    /// Whether a MAC is this pod's. A pod whose interfaces cannot be read takes what it is given,
    /// but never a loopback leg. A bridge that does not know the interfaces says which MAC it means the pod by.
    fn is_ours(&self, mac: MacAddr) -> bool {
        self.own.contains(&mac)
            || (self.own.is_empty() && !is_loopback_leg(mac))
            || (self.adopts && self.ports.values().any(|port| port.mac == Some(mac)))
            || self.known.get(&mac).is_some_and(|known| known.added.is_pod)
    }

    /// The registered workload that stands for this pod: its first interface that is registered.
    pub(super) fn governing(&self) -> Option<(MacAddr, &Endpoint)> {
        let first = self
            .own
            .iter()
            .find_map(|mac| self.known.get_key_value(mac));
        let any = || self.known.iter().find(|(mac, _)| self.is_ours(**mac));
        first.or_else(any).map(|(mac, endpoint)| (*mac, endpoint))
    }

    /// The MAC that reports carry: the governing one, else the pod's first.
    pub(super) fn epmac(&self) -> MacAddr {
        let registered = self.governing().map(|(mac, _)| mac);
        registered.or(self.own.first().copied()).unwrap_or_default()
    }

    pub(super) fn add(&mut self, asked: &AddMac) -> Outcome {
        let former = asked.oldmac.unwrap_or(asked.mac);
        let is_new = !self.known.contains_key(&former) && !self.known.contains_key(&asked.mac);
        if is_new && self.known.len() >= MAX_ENDPOINTS {
            return Err(Ignored::Full("endpoints"));
        }
        let kept = self.known.remove(&former);
        let endpoint = kept.or_else(|| self.known.remove(&asked.mac));
        let mut endpoint = endpoint.unwrap_or_else(|| Endpoint::new(asked));
        endpoint.added = asked.clone();
        self.known.insert(asked.mac, endpoint);
        Ok(self.changed(self.is_ours(asked.mac)))
    }

    pub(super) fn remove(&mut self, mac: MacAddr) -> Vec<Effect> {
        let ours = self.is_ours(mac);
        if self.known.remove(&mac).is_some() && ours {
            vec![Effect::LastReport, Effect::PolicyChanged]
        } else {
            Vec::new()
        }
    }

    /// Sets whether to observe only; says whether this pod is meant, and whether anything changed.
    pub(super) fn set_tap(&mut self, macs: &[MacAddr], tap: Option<bool>) -> (bool, bool) {
        let (mut ours, mut changed) = (false, false);
        for mac in macs {
            let is_ours = self.is_ours(*mac);
            let Some(endpoint) = self.known.get_mut(mac) else { continue };
            let before = endpoint.tap;
            endpoint.tap = tap.or(before);
            ours |= is_ours;
            changed |= is_ours && endpoint.tap != before;
        }
        (ours, changed)
    }

    pub(super) fn set_boundary(&mut self, asked: &CfgNbe) -> Outcome {
        if asked.macs.is_empty() {
            return Err(Ignored::NoWorkload);
        }
        let Some(on) = asked.nbe else { return Ok(Vec::new()) };
        let mut changed = false;
        for mac in &asked.macs {
            let is_ours = self.is_ours(*mac);
            if let Some(endpoint) = self.known.get_mut(mac) {
                changed |= is_ours && endpoint.boundary != on;
                endpoint.boundary = on;
            }
        }
        Ok(self.changed(changed))
    }

    /// Gives registered workloads a policy. Of workloads that are not ours it is not kept.
    pub(super) fn set_law(&mut self, macs: &[MacAddr], law: &Law) -> Vec<Effect> {
        let mut changed = false;
        for mac in macs
            .iter()
            .filter(|mac| self.is_ours(**mac))
            .copied()
            .collect::<Vec<_>>()
        {
            if let Some(endpoint) = self.known.get_mut(&mac) {
                endpoint.law = law.clone();
                changed = true;
            }
        }
        self.changed(changed)
    }

    /// A policy compiled: from now on it is what a refused one falls back to.
    pub(super) fn accepted(&mut self, law: &Law) {
        for endpoint in self
            .known
            .values_mut()
            .filter(|endpoint| endpoint.law.is(law))
        {
            endpoint.good = law.clone();
        }
    }

    /// A policy did not compile: the last good one stays.
    pub(super) fn refused(&mut self, law: &Law) {
        for endpoint in self
            .known
            .values_mut()
            .filter(|endpoint| endpoint.law.is(law))
        {
            endpoint.law = endpoint.good.clone();
        }
    }

    pub(super) fn add_tap(&mut self, port: TapPort) -> Outcome {
        let netns = self.place(port.netns, port.epmac);
        let port_use = PortUse { mac: port.epmac, ..PortUse::default() };
        self.add_port(Port::Tap { netns, iface: port.iface }, port_use)
    }

    pub(super) fn del_tap(&mut self, port: TapPort) -> Vec<Effect> {
        let TapPort { netns, iface, .. } = port;
        let here = Port::Tap { netns: String::new(), iface: iface.clone() };
        self.del_port([Port::Tap { netns, iface }, here])
    }

    pub(super) fn add_queue(&mut self, port: NfqPort) -> Outcome {
        let netns = self.place(port.netns, port.epmac);
        let port_use = PortUse { mac: port.epmac, queue: port.qnum, ..PortUse::default() };
        self.add_port(Port::Queue { netns, iface: port.iface }, port_use)
    }

    pub(super) fn del_queue(&mut self, port: NfqPort) -> Vec<Effect> {
        let NfqPort { netns, iface, .. } = port;
        let here = Port::Queue { netns: String::new(), iface: iface.clone() };
        self.del_port([Port::Queue { netns, iface }, here])
    }

    pub(super) fn add_pair(&mut self, pair: PortPair) -> Outcome {
        let quarantined = pair.quar == Some(true);
        let port = Port::Pair { outer: pair.vex_iface, inner: pair.vin_iface };
        // For a pair that is there, the request only says whether it is in quarantine.
        let mac = self.ports.get(&port).map_or(pair.epmac, |held| held.mac);
        self.add_port(port, PortUse { mac, quarantined, ..PortUse::default() })
    }

    pub(super) fn del_pair(&mut self, pair: PortPair) -> Vec<Effect> {
        self.del_port([Port::Pair { outer: pair.vex_iface, inner: pair.vin_iface }])
    }

    /// The namespace of a port. Of this pod's own interfaces the agent's path means nothing here: the
    /// proxy is inside.
    fn place(&self, netns: String, mac: Option<MacAddr>) -> String {
        let here = mac.is_some_and(|mac| self.own.contains(&mac));
        if here { String::new() } else { netns }
    }

    fn add_port(&mut self, port: Port, port_use: PortUse) -> Outcome {
        if self.ports.len() >= MAX_PORTS && !self.ports.contains_key(&port) {
            return Err(Ignored::Full("ports"));
        }
        let before = self.stance();
        let changed = self.ports.insert(port, port_use) != Some(port_use);
        self.had_port |= port_use.mac.is_some_and(|mac| self.is_ours(mac));
        Ok(self.ports_changed(before, changed))
    }

    /// Takes away the first of these that is there.
    fn del_port(&mut self, names: impl IntoIterator<Item = Port>) -> Vec<Effect> {
        let before = self.stance();
        let removed = names
            .into_iter()
            .any(|port| self.ports.remove(&port).is_some());
        self.ports_changed(before, removed)
    }

    /// What a port may change for the policy: whether the workload is cut off, and which it is.
    fn stance(&self) -> (bool, Option<MacAddr>) {
        (self.quarantined(), self.governing().map(|(mac, _)| mac))
    }

    fn ports_changed(&self, before: (bool, Option<MacAddr>), changed: bool) -> Vec<Effect> {
        let mut effects = self.changed(before != self.stance());
        effects.extend(changed.then_some(Effect::PortsChanged));
        effects
    }

    /// The ports that are not the pod's own interfaces: those that have to be opened.
    pub(super) fn elsewhere(&self) -> impl Iterator<Item = (Port, PortUse)> + '_ {
        let ports = self.ports.iter().filter(|(port, what)| match port {
            Port::Tap { netns, .. } | Port::Queue { netns, .. } => !netns.is_empty(),
            // A pair of the pod's own says whether it is in quarantine, and nothing else.
            Port::Pair { .. } => what.mac.is_none_or(|mac| !self.own.contains(&mac)),
        });
        ports.map(|(port, port_use)| (port.clone(), *port_use))
    }

    fn own_ports(&self) -> impl Iterator<Item = (&Port, &PortUse)> {
        self.ports
            .iter()
            .filter(|(_, port)| port.mac.is_some_and(|mac| self.is_ours(mac)))
    }

    /// Whether a port of ours is in quarantine.
    pub(super) fn quarantined(&self) -> bool {
        self.own_ports().any(|(_, port)| port.quarantined)
    }

    /// Whether the agent wants reports: it does unless it took away every port it had given.
    pub(super) fn observed(&self) -> bool {
        !self.had_port || self.own_ports().next().is_some()
    }

    /// Ports and registrations as requests would set them again.
    pub(super) fn quarantine_ports(&self) -> impl Iterator<Item = (&Port, &PortUse)> {
        self.own_ports().filter(|(_, port)| port.quarantined)
    }

    /// The sensors of a registered workload. Of workloads that are not ours they are not kept.
    pub(super) fn sensors(&mut self, mac: MacAddr) -> Option<&mut Sensors> {
        if !self.is_ours(mac) {
            return None;
        }
        self.known
            .get_mut(&mac)
            .map(|endpoint| &mut endpoint.sensors)
    }

    /// What sensors the governing workload has.
    pub(super) fn sensor_totals(&self) -> SensorTotals {
        let governing = self.governing();
        governing.map_or_else(SensorTotals::default, |(_, endpoint)| endpoint.sensors.totals())
    }

    pub(super) fn stats_query(&self, macs: &[MacAddr]) -> Query {
        let known = |mac: &&MacAddr| self.known.contains_key(*mac);
        Query::MacStats {
            known: macs.iter().any(|mac| known(&mac)),
            ours: macs.iter().any(|mac| known(&mac) && self.is_ours(*mac)),
        }
    }

    fn changed(&self, changed: bool) -> Vec<Effect> {
        if changed { vec![Effect::PolicyChanged] } else { Vec::new() }
    }
}

impl Endpoint {
    fn new(asked: &AddMac) -> Self {
        Self {
            tap: None,
            boundary: false,
            law: Law::Default,
            good: Law::Default,
            added: asked.clone(),
            sensors: Sensors::default(),
        }
    }
}

impl Law {
    /// Whether two are the same delivery.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rules(ours), Self::Rules(theirs)) => Arc::ptr_eq(ours, theirs),
            (Self::Open, Self::Open) | (Self::Default, Self::Default) => true,
            _ => false,
        }
    }
}

/// A pod's loopback leg: the agent's made-up prefix.
fn is_loopback_leg(mac: MacAddr) -> bool {
    let [a, b, c, d, ..] = mac.0;
    [a, b, c, d] == [0x6c, 0x6b, 0x73, 0x74]
}

/// Workloads that may be registered: a node's worth.
pub(crate) const MAX_ENDPOINTS: usize = 512;
/// Ports that may be registered.
pub(crate) const MAX_PORTS: usize = 1024;
