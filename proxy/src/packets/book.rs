//! The sessions by the engine's flows: each of its events is told to the session it is about.

use std::{collections::HashMap, sync::Arc, time::Duration};

use outrider_dpi::Finding;
use outrider_model::{Direction, FlowId, FlowKey, IpProto, Side, ThreatId};
use outrider_packet::{Ends, Event, FlowEnd, FlowRecord, Frame};
use outrider_telemetry::{CutReason, Grip, Outcome, unix_seconds};

use super::{
    session::{self, Fate, Scene, Session},
    sort::{self, Ignored},
};
use crate::{
    context::SharedContext,
    dns::{self, Overheard},
    identity::Identity,
};

/// The sessions, by the engine's numbers.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) context: SharedContext,
    pub(super) scene: Scene,
    pub(super) gates: Gates,
    /// The pod's addresses that flows were sorted by.
    sorted_by: Arc<Identity>,
    open: HashMap<FlowId, Entry>,
    /// TCP flows that may not go on, since somebody last asked.
    pub(super) condemned: Vec<FlowId>,
    /// Names, where questions do not come to the proxy.
    overheard: Option<Overheard>,
    /// Whether the frame at hand came in by an interface; `None` if no interface saw it.
    pub(super) came_in: Option<bool>,
    pub(super) now: Duration,
    /// Bytes that the inspectors of all sessions hold.
    held: usize,
    /// Room for what an inspector says.
    events: Vec<outrider_dpi::Event>,
    pub(super) pod: Pod,
    /// The direction of a flow whose client sent the packet at hand, where [`Pod::Beyond`] is.
    pub(super) toward: Direction,
    /// The packet at hand belongs to a flow that may not go on.
    pub(super) stopped: bool,
}

/// Whose traffic it is, which gives each flow its direction.
#[derive(Clone, Debug)]
pub(crate) enum Pod {
    /// The proxy's own pod's.
    Own,
    /// That of the pod with these addresses.
    Other(Box<Identity>),
    /// That of a pod behind one of two interfaces; each frame says which.
    Beyond,
}

/// What can be stopped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Gates {
    /// TCP, by resets.
    pub tcp: bool,
    /// What is not TCP, by the queue.
    pub other: bool,
}

impl Gates {
    fn grip(self, proto: IpProto) -> Grip {
        let gated = if proto == IpProto::TCP { self.tcp } else { self.other };
        if gated { Grip::Gated } else { Grip::Seen }
    }
}

#[derive(Debug)]
enum Entry {
    Session(Box<Session>),
    Ignored(Ignored),
}

impl Book {
    /// No session of the proxy's own pod.
    pub(super) fn new(context: SharedContext, scene: Scene) -> Self {
        Self {
            overheard: dns::overhear(&context),
            came_in: None,
            now: Duration::ZERO,
            sorted_by: context.identity.load_full(),
            context,
            scene,
            gates: Gates::default(),
            open: HashMap::new(),
            condemned: Vec::new(),
            held: 0,
            events: Vec::new(),
            pod: Pod::Own,
            toward: Direction::Inbound,
            stopped: false,
        }
    }

    /// The key of a session's flow.
    pub(super) fn key(&self, flow: FlowId) -> Option<FlowKey> {
        match self.open.get(&flow) {
            Some(Entry::Session(session)) => Some(*session.flow().key()),
            _ => None,
        }
    }

    /// Takes what the engine says of the frame at hand.
    pub(super) fn hear(&mut self, event: Event<'_>, frame: &Frame<'_>) {
        match event {
            Event::Opened { flow, ends, mid_stream } => self.open(flow, &ends, mid_stream),
            Event::Data { flow, side, bytes } => {
                self.overhear(flow, side, bytes);
                self.with(flow, |session, scene, events| session.data(scene, side, bytes, events));
            }
            Event::Lost { flow, side, bytes } => self.with(flow, |session, scene, events| {
                session.lost(scene, side, bytes, events);
                session.fate()
            }),
            Event::Ended { flow, side } => self.with(flow, |session, scene, events| {
                session.ended(scene, side, events);
                session.fate()
            }),
            Event::Finding { flow, side, id, message } => {
                self.found(flow, side, (id, message), frame.packet());
            }
            Event::Packet(record, side) => self.packet(record, side),
            Event::Closed(record) => self.close(record),
        }
    }

    fn open(&mut self, flow: FlowId, ends: &Ends, mid_stream: bool) {
        let sorted = match &self.pod {
            Pod::Own => sort::sort(ends, &self.context.identity.load()),
            Pod::Other(pod) => sort::sort(ends, pod),
            Pod::Beyond => sort::beyond(ends, self.toward),
        };
        let entry = match sorted {
            Ok(direction) => {
                let grip = self.gates.grip(ends.proto);
                let key = session::key(ends, direction);
                let session = Session::open(&self.scene, key, grip, mid_stream);
                self.settle(flow, ends.proto, session.fate());
                Entry::Session(Box::new(session))
            }
            Err(reason) => Entry::Ignored(reason),
        };
        self.open.insert(flow, entry);
    }

    fn with(
        &mut self,
        flow: FlowId,
        act: impl FnOnce(&mut Session, &Scene, &mut Vec<outrider_dpi::Event>) -> Fate,
    ) {
        let Some(Entry::Session(session)) = self.open.get_mut(&flow) else { return };
        let before = session.held();
        let mut fate = act(session, &self.scene, &mut self.events);
        let others = self.held.saturating_sub(before);
        self.held = others.saturating_add(session.held());
        if self.held > MAX_HELD {
            self.held = others;
            fate = session.unread_from_here(&self.scene);
            self.context.packets.unread();
        }
        let proto = session.flow().key().proto;
        self.settle(flow, proto, fate);
    }

    /// Learns names from the pod's questions and their answers.
    fn overhear(&mut self, flow: FlowId, side: Side, bytes: &[u8]) {
        let (Some(overheard), Some(came_in)) = (&mut self.overheard, self.came_in) else { return };
        let Some(Entry::Session(session)) = self.open.get(&flow) else { return };
        let key = session.flow().key();
        if key.proto == IpProto::UDP
            && let Some((name, given)) = overheard.hear(key, (side, came_in), bytes, self.now)
        {
            self.context.names.learn(&name, &given, unix_seconds());
        }
    }

    fn packet(&mut self, record: &FlowRecord, side: Side) {
        match self.open.get_mut(&record.flow) {
            Some(Entry::Session(session)) => {
                session.packet(&self.scene, record);
                let flow = session.flow();
                let gated = flow.grip() == Grip::Gated;
                self.scene.metering.packet(flow.key(), side, gated);
                self.stopped |= session.fate().condemned;
            }
            Some(Entry::Ignored(reason)) => {
                let reason = *reason;
                self.ignored(reason);
            }
            // It was cleared and goes on.
            None => self.open(record.flow, &record.ends, true),
        }
    }

    fn found(
        &mut self,
        flow: Option<FlowId>,
        side: Side,
        (id, message): (ThreatId, &'static str),
        packet: &[u8],
    ) {
        let Some(flow) = flow.filter(|_| self.scene.dpi.is_on(id)) else { return };
        let finding = Finding { id, side, message: message.into() };
        self.with(flow, |session, scene, _| session.found(scene, &finding, packet));
    }

    fn close(&mut self, record: &FlowRecord) {
        if let Some(Entry::Session(session)) = self.open.remove(&record.flow) {
            self.held = self.held.saturating_sub(session.held());
            if is_in_vain(record) {
                self.scene.metering.failed(session.flow().key());
            }
            session.close(&self.scene, record.end, &mut self.events);
        }
    }

    fn settle(&mut self, flow: FlowId, proto: IpProto, fate: Fate) {
        self.stopped |= fate.condemned;
        if fate.condemned && proto == IpProto::TCP && self.condemned.last() != Some(&flow) {
            self.condemned.push(flow);
        }
    }

    /// Judges every session again.
    pub(super) fn rule(&mut self) {
        let mut condemned = Vec::new();
        for (flow, entry) in &mut self.open {
            let Entry::Session(session) = entry else { continue };
            session.rule(&self.scene);
            if session.fate().condemned && session.flow().key().proto == IpProto::TCP {
                condemned.push(*flow);
            }
        }
        self.condemned.extend(condemned);
    }

    /// What was not the pod's may be since its addresses changed.
    pub(super) fn sort_again(&mut self) {
        let pod = self.context.identity.load_full();
        if !Arc::ptr_eq(&pod, &self.sorted_by) {
            self.sorted_by = pod;
            self.open
                .retain(|_, entry| !matches!(entry, Entry::Ignored(Ignored::NotOurs)));
        }
    }

    /// A flow of which nothing was seen is there all the same.
    pub(super) fn adopted(&self, flow: FlowId) {
        if let Some(Entry::Session(session)) = self.open.get(&flow)
            && !session.fate().condemned
        {
            session.flow().establish();
        }
    }

    /// Ends sessions that were cleared.
    pub(super) fn clear(&mut self) {
        let cleared = |entry: &Entry| match entry {
            Entry::Session(session) => session.flow().cut_reason() == Some(CutReason::Clear),
            Entry::Ignored(_) => false,
        };
        for (_, entry) in self.open.extract_if(|_, entry| cleared(entry)) {
            if let Entry::Session(session) = entry {
                self.held = self.held.saturating_sub(session.held());
                session.finish(Outcome::Cleared);
            }
        }
    }

    /// Counts what belongs to no session.
    pub(super) fn ignored(&self, reason: Ignored) {
        self.context.packets.ignored(reason);
    }
}

/// Bytes that the inspectors of all sessions may hold; what takes more is not read on.
pub(super) const MAX_HELD: usize = 8 << 20;

/// Whether a client tried and its server refused or never answered.
fn is_in_vain(record: &FlowRecord) -> bool {
    match (record.ends.proto, record.end) {
        _ if record.mid_stream || record.client.packets == 0 => false,
        (IpProto::TCP, FlowEnd::Reset | FlowEnd::Silent) => !record.established,
        (IpProto::TCP, _) => false,
        (_, end) => end == FlowEnd::Silent && record.server.packets == 0,
    }
}
