//! Frames in, sessions out: the engine and the book of its flows.

use std::{net::SocketAddr, time::Duration};

use outrider_capture as capture;
use outrider_model::{Direction, FlowId, FlowKey, IpProto, Side};
use outrider_packet::{Counters, Engine, Frame, Limits, LinkType, Peek};

pub(crate) use super::book::{Gates, Pod};
use super::{book::Book, session::Scene, sort::Ignored};
use crate::context::SharedContext;

/// The packets' engine and the sessions it makes. It owns no socket and reads no clock.
#[derive(Debug)]
pub(crate) struct Watch {
    engine: Engine,
    book: Book,
}

impl Watch {
    /// Starts with nothing seen.
    pub(crate) fn new(context: SharedContext, scene: Scene, limits: Limits) -> Self {
        let book = Book::new(context, scene);
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
            // The tap of all interfaces shows it again, without its tag, on the VLAN's own.
            _ if matches!(self.book.pod, Pod::Own) && is_tagged(frame) => {
                return self.book.ignored(Ignored::Tagged);
            }
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

    /// Says that a TCP connection of the pod is there, which `serves` it or not; one of which nothing was
    /// seen becomes a session if `adopt`. Whether it has one now.
    pub(crate) fn knows_tcp(
        &mut self,
        (local, remote): (SocketAddr, SocketAddr),
        serves: bool,
        adopt: bool,
    ) -> bool {
        let Self { engine, book } = self;
        let known = engine.keep_tcp(local, remote);
        if known || !adopt {
            return known;
        }
        if serves {
            engine.learn_server(IpProto::TCP, local);
        }
        let flow = engine.adopt_tcp(local, remote, &mut |event| book.hear(event, &NOTHING));
        flow.is_some_and(|flow| {
            book.adopted(flow);
            true
        })
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
        self.book.key(flow)
    }

    /// TCP flows that may not go on, since the last call: whoever can resets them.
    pub(crate) fn take_condemned(&mut self) -> Vec<FlowId> {
        std::mem::take(&mut self.book.condemned)
    }
}

/// Whether a frame belongs to a VLAN, whose number the kernel took off or not. Number 0 is none.
fn is_tagged(frame: &capture::Frame<'_>) -> bool {
    let inside = match frame.bytes.get(12..16) {
        Some(&[0x81, 0x00, high, low] | &[0x88, 0xa8, high, low]) => {
            Some(u16::from_be_bytes([high, low]) & 0x0fff)
        }
        _ => None,
    };
    frame.link == capture::Link::Ethernet && frame.vlan.or(inside).is_some_and(|id| id != 0)
}

/// What events belong to that time brings.
const NOTHING: Frame<'_> = Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: &[], wire: 0 };
