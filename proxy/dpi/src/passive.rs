//! The inspector of a flow of which only packets are seen: what is missing is not guessed.

use std::sync::Arc;

use outrider_model::{IpProto, Side};

use crate::{DatagramInspector, DpiConfig, Event, FlowInspector, Interest, Need};

/// How often a stream without a beginning is tried again, each time with what a client says next.
const MAX_STARTS: u8 = 8;

/// Inspects a flow of any protocol whose packets are seen as they pass by: what a tap shows, or a capture file.
#[derive(Debug)]
pub struct PassiveInspector {
    stage: Stage,
    starts: u8,
    /// Bytes of the stream were not seen, or its beginning.
    torn: bool,
}

#[derive(Debug)]
enum Stage {
    Datagrams(DatagramInspector),
    /// From its first byte on, or from a client's message on.
    Stream(Box<FlowInspector>, Interest),
    /// A torn stream waits for the client's next message.
    Waiting,
    Over,
}

impl PassiveInspector {
    /// The inspector of a flow; over at once where nobody reads the protocol.
    #[must_use]
    pub fn new(dpi: &Arc<DpiConfig>, proto: IpProto, port: u16, mid_stream: bool) -> Self {
        let mut reading = Self { stage: Stage::Over, starts: 0, torn: mid_stream };
        match proto {
            IpProto::TCP if mid_stream => reading.stage = Stage::Waiting,
            IpProto::TCP => reading.start(dpi, port),
            IpProto::UDP => {
                let inspector = DatagramInspector::new(Arc::clone(dpi), port);
                reading.stage = Stage::Datagrams(inspector);
            }
            _ => {}
        }
        reading
    }

    /// Of a flow whose bytes nobody sees.
    #[must_use]
    pub fn over() -> Self {
        Self { stage: Stage::Over, starts: 0, torn: true }
    }

    /// Whether nothing more is wanted.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Bytes of the peers that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.stage {
            Stage::Stream(inspector, _) => inspector.held(),
            Stage::Datagrams(inspector) => inspector.held(),
            Stage::Waiting | Stage::Over => 0,
        }
    }

    /// Nobody looks any longer.
    pub fn stop(&mut self) {
        self.stage = Stage::Over;
    }

    /// Shows the next bytes of a side: a datagram, or a part of a stream. The settings and the server's port
    /// are those that it was made with.
    pub fn data(
        &mut self,
        (dpi, port): (&Arc<DpiConfig>, u16),
        side: Side,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) {
        if matches!(self.stage, Stage::Waiting) && side == Side::Client {
            self.start(dpi, port);
        }
        match &mut self.stage {
            Stage::Stream(inspector, interest) => {
                if interest.of(side) != Need::Nothing {
                    *interest = inspector.feed(side, bytes, events);
                }
            }
            Stage::Datagrams(inspector) => {
                if !inspector.feed(side, bytes, events) {
                    self.stage = Stage::Over;
                }
            }
            Stage::Waiting | Stage::Over => {}
        }
        self.settle(events);
    }

    /// Bytes of a side went by unseen: only what the inspector did not want to see may. Whether it ends for
    /// want of them, which it does once the application is `known`; before, it tries again.
    pub fn lost(&mut self, side: Side, bytes: u64, known: bool, events: &mut Vec<Event>) -> bool {
        let Stage::Stream(inspector, interest) = &mut self.stage else { return false };
        match interest.of(side) {
            Need::Nothing => return false,
            Need::Skip(most) if bytes <= most => *interest = inspector.skip(side, bytes, events),
            _ if known => {
                self.stage = Stage::Over;
                return true;
            }
            _ => self.wait(events),
        }
        self.settle(events);
        false
    }

    /// A side sent its last byte.
    pub fn ended(&mut self, side: Side, events: &mut Vec<Event>) {
        if let Stage::Stream(inspector, interest) = &mut self.stage {
            *interest = inspector.end(side, events);
        }
        self.settle(events);
    }

    /// The flow is over.
    pub fn close(&mut self, events: &mut Vec<Event>) {
        if let Stage::Datagrams(inspector) = &mut self.stage {
            inspector.end(events);
        }
        self.stage = Stage::Over;
    }

    fn start(&mut self, dpi: &Arc<DpiConfig>, port: u16) {
        self.starts = self.starts.saturating_add(1);
        let inspector = FlowInspector::new(Arc::clone(dpi), port);
        let all = Interest { client: Need::Bytes, server: Need::Bytes };
        self.stage = Stage::Stream(Box::new(inspector), all);
    }

    /// Goes on with the client's next message, if it may still be tried.
    fn wait(&mut self, events: &mut Vec<Event>) {
        self.torn = true;
        if self.starts < MAX_STARTS {
            self.stage = Stage::Waiting;
        } else {
            self.stage = Stage::Over;
            events.push(Event::Unidentified);
        }
    }

    /// A torn stream that nobody recognised is tried again before it counts as unidentified.
    fn settle(&mut self, events: &mut Vec<Event>) {
        let unknown = events
            .iter()
            .position(|event| matches!(event, Event::Unidentified));
        if let Some(at) = unknown
            && self.torn
            && self.starts < MAX_STARTS
            && matches!(self.stage, Stage::Stream(..))
        {
            events.remove(at);
            self.stage = Stage::Waiting;
        }
        if let Stage::Stream(_, interest) = &self.stage
            && interest.is_over()
        {
            self.stage = Stage::Over;
        }
    }
}
