//! Frames in, sessions out: the engine's events, each told to the session it is about.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use outrider_capture as capture;
use outrider_dpi::Finding;
use outrider_model::{Direction, FlowId, FlowKey, IpProto, Side, ThreatId};
use outrider_packet::{
    Counters, Ends, Engine, Event, FlowEnd, FlowRecord, Frame, Limits, LinkType, Peek,
};
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

/// The packets' engine and the sessions it makes. It owns no socket and reads no clock.
#[derive(Debug)]
pub(crate) struct Watch {
    engine: Engine,
    book: Book,
}

/// The sessions, by the engine's numbers.
#[derive(Debug)]
struct Book {
    context: SharedContext,
    scene: Scene,
    gates: Gates,
    /// The pod's addresses that flows were sorted by.
    sorted_by: Arc<Identity>,
    open: HashMap<FlowId, Entry>,
    /// TCP flows that may not go on, since somebody last asked.
    condemned: Vec<FlowId>,
    /// Names, where questions do not come to the proxy.
    overheard: Option<Overheard>,
    /// Whether the frame at hand came in by an interface; `None` if no interface saw it.
    came_in: Option<bool>,
    now: Duration,
    /// Room for what an inspector says.
    events: Vec<outrider_dpi::Event>,
    pod: Pod,
    /// The direction of a flow whose client sent the packet at hand, where [`Pod::Beyond`] is.
    toward: Direction,
    /// The packet at hand belongs to a flow that may not go on.
    stopped: bool,
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

impl Watch {
    /// Starts with nothing seen.
    pub(crate) fn new(context: SharedContext, scene: Scene, limits: Limits) -> Self {
        let book = Book {
            overheard: dns::overhear(&context),
            came_in: None,
            now: Duration::ZERO,
            sorted_by: context.identity.load_full(),
            context,
            scene,
            gates: Gates::default(),
            open: HashMap::new(),
            condemned: Vec::new(),
            events: Vec::new(),
            pod: Pod::Own,
            toward: Direction::Inbound,
            stopped: false,
        };
        Self { engine: Engine::new(limits), book }
    }

    /// The same for another pod's traffic.
    #[must_use]
    pub(crate) fn of(mut self, pod: Pod) -> Self {
        self.book.pod = pod;
        self
    }

    /// Says what can be stopped; flows that are open keep what held when they came.
    pub(crate) fn set_gates(&mut self, gates: Gates) {
        self.book.gates = gates;
    }

    /// Takes a frame of a tap, as of `now`.
    pub(crate) fn frame(&mut self, now: Duration, frame: &capture::Frame<'_>) {
        let link = match frame.link {
            _ if frame.loopback => return self.book.ignored(Ignored::Loopback),
            _ if frame.foreign => return self.book.ignored(Ignored::Foreign),
            capture::Link::Ethernet => LinkType::Ethernet,
            capture::Link::Raw => LinkType::Raw,
            capture::Link::Other(_) => return self.book.ignored(Ignored::Link),
        };
        self.book.came_in = Some(frame.direction == Direction::Inbound);
        self.feed(&Frame { link, at: now, bytes: frame.bytes, wire: frame.wire });
        self.book.came_in = None;
    }

    /// Takes a frame on its way from one interface to another, of any machine; says whether it may go
    /// on. What nobody can read may not, nor may any other link than Ethernet; what is not IP may.
    pub(crate) fn passes(&mut self, now: Duration, frame: &capture::Frame<'_>) -> bool {
        if frame.link != capture::Link::Ethernet {
            self.book.ignored(Ignored::Link);
            return false;
        }
        let (link, wire) = (LinkType::Ethernet, frame.wire);
        let frame_in = Frame { link, at: now, bytes: frame.bytes, wire };
        let by_server = self
            .engine
            .peek(&frame_in)
            .is_some_and(|peek| peek.side == Side::Server);
        self.book.toward = match (frame.direction, by_server) {
            (Direction::Inbound, true) => Direction::Outbound,
            (Direction::Outbound, true) => Direction::Inbound,
            (direction, false) => direction,
        };
        self.book.came_in = Some(frame.direction == Direction::Inbound);
        let passes = self.weigh(&frame_in);
        self.book.came_in = None;
        passes
    }

    /// Takes an IP packet that waits; says whether it may go on.
    pub(crate) fn packet_passes(&mut self, now: Duration, bytes: &[u8], wire: usize) -> bool {
        self.weigh(&Frame { link: LinkType::Raw, at: now, bytes, wire })
    }

    fn weigh(&mut self, frame: &Frame<'_>) -> bool {
        let unread = |counters: &Counters| counters.malformed.saturating_add(counters.cut);
        let before = unread(&self.engine.counters());
        self.book.stopped = false;
        self.feed(frame);
        !self.book.stopped && unread(&self.engine.counters()) == before
    }

    /// Takes an IP packet that no tap shows, of which `wire` bytes were there.
    pub(crate) fn packet(&mut self, now: Duration, bytes: &[u8], wire: usize) {
        self.feed(&Frame { link: LinkType::Raw, at: now, bytes, wire });
    }

    /// Says what an IP packet is, and takes nothing in.
    pub(crate) fn peek<'a>(&self, bytes: &'a [u8], wire: usize) -> Option<Peek<'a>> {
        self.engine
            .peek(&Frame { link: LinkType::Raw, at: Duration::ZERO, bytes, wire })
    }

    fn feed(&mut self, frame: &Frame<'_>) {
        let Self { engine, book } = self;
        book.now = frame.at;
        engine.feed(frame, &mut |event| book.hear(event, frame));
    }

    /// Lets time pass: flows that were silent for too long end, and so do those that were cleared.
    pub(crate) fn advance(&mut self, now: Duration) {
        let Self { engine, book } = self;
        engine.advance(now, &mut |event| book.hear(event, &NOTHING));
        book.clear();
        book.sort_again();
    }

    /// The pod's ports that serve something: whichever packet of a flow to one is seen first, the pod is its
    /// server.
    pub(crate) fn learn_servers(&mut self) {
        let pod = self.book.context.identity.load();
        let apps = self.book.scene.telemetry.apps().lock();
        for ((proto, port), _) in apps.iter() {
            for ip in pod.addresses() {
                self.engine.learn_server(proto, SocketAddr::new(ip, port));
            }
        }
    }

    /// Judges every session again, after a policy swap.
    pub(crate) fn rule(&mut self) {
        self.book.rule();
    }

    /// Every session ends.
    pub(crate) fn finish(&mut self) {
        let Self { engine, book } = self;
        engine.finish(&mut |event| book.hear(event, &NOTHING));
    }

    /// What the engine counted.
    pub(crate) fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The engine, for who needs to know where a flow is.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The key of a session's flow.
    pub(crate) fn key(&self, flow: FlowId) -> Option<FlowKey> {
        match self.book.open.get(&flow) {
            Some(Entry::Session(session)) => Some(*session.flow().key()),
            _ => None,
        }
    }

    /// TCP flows that may not go on, since the last call: whoever can resets them.
    pub(crate) fn take_condemned(&mut self) -> Vec<FlowId> {
        std::mem::take(&mut self.book.condemned)
    }
}

impl Book {
    fn hear(&mut self, event: Event<'_>, frame: &Frame<'_>) {
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
        let fate = act(session, &self.scene, &mut self.events);
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

    fn rule(&mut self) {
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
    fn sort_again(&mut self) {
        let pod = self.context.identity.load_full();
        if !Arc::ptr_eq(&pod, &self.sorted_by) {
            self.sorted_by = pod;
            self.open
                .retain(|_, entry| !matches!(entry, Entry::Ignored(Ignored::NotOurs)));
        }
    }

    fn clear(&mut self) {
        let cleared = |entry: &Entry| match entry {
            Entry::Session(session) => session.flow().cut_reason() == Some(CutReason::Clear),
            Entry::Ignored(_) => false,
        };
        for (_, entry) in self.open.extract_if(|_, entry| cleared(entry)) {
            if let Entry::Session(session) = entry {
                session.finish(Outcome::Cleared);
            }
        }
    }

    fn ignored(&self, reason: Ignored) {
        self.context.packets.ignored(reason);
    }
}

/// Whether a client tried and its server refused or never answered.
fn is_in_vain(record: &FlowRecord) -> bool {
    match (record.ends.proto, record.end) {
        _ if record.mid_stream || record.client.packets == 0 => false,
        (IpProto::TCP, FlowEnd::Reset | FlowEnd::Silent) => !record.established,
        (IpProto::TCP, _) => false,
        (_, end) => end == FlowEnd::Silent && record.server.packets == 0,
    }
}

/// What events belong to that time brings.
const NOTHING: Frame<'_> = Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: &[], wire: 0 };
