//! One flow under inspection.

use std::sync::Arc;

use outrider_dpi::{DatagramInspector, DpiConfig, Event, FlowInspector, Interest, Need};
use outrider_model::{AppId, IpProto, Side, ThreatId};
use outrider_packet::Ends;

/// Threats that are shown of one flow.
const MAX_THREATS: usize = 32;
/// How often a stream without a beginning is tried again, each time with what a client says next.
const MAX_STARTS: u8 = 8;

/// A flow and what was learned of it.
#[derive(Debug)]
pub(super) struct Watched {
    config: Arc<DpiConfig>,
    port: u16,
    reading: Reading,
    events: Vec<Event>,
    starts: u8,
    /// Bytes of the stream were not seen, or its beginning.
    torn: bool,
    pub(super) app: Option<AppId>,
    pub(super) host: String,
    pub(super) sni: String,
    pub(super) threats: Vec<ThreatId>,
    pub(super) note: Option<&'static str>,
}

#[derive(Debug)]
enum Reading {
    /// From its first byte on, or from a client's message on.
    Stream(Box<FlowInspector>, Interest),
    Datagrams(DatagramInspector),
    /// A torn stream waits for the client's next message.
    Waiting,
    Over,
}

impl Watched {
    pub(super) fn new(config: &Arc<DpiConfig>, ends: Ends, mid_stream: bool) -> Self {
        let port = ends.server.port();
        let mut watched = Self {
            config: Arc::clone(config),
            port,
            reading: Reading::Over,
            events: Vec::new(),
            starts: 0,
            torn: mid_stream,
            app: None,
            host: String::new(),
            sni: String::new(),
            threats: Vec::new(),
            note: None,
        };
        match ends.proto {
            IpProto::TCP if mid_stream => watched.reading = Reading::Waiting,
            IpProto::TCP => watched.start(),
            IpProto::UDP => {
                let inspector = DatagramInspector::new(Arc::clone(config), port);
                watched.reading = Reading::Datagrams(inspector);
            }
            _ => {}
        }
        watched
    }

    fn start(&mut self) {
        self.starts = self.starts.saturating_add(1);
        let inspector = FlowInspector::new(Arc::clone(&self.config), self.port);
        let all = Interest { client: Need::Bytes, server: Need::Bytes };
        self.reading = Reading::Stream(Box::new(inspector), all);
    }

    pub(super) fn data(&mut self, side: Side, bytes: &[u8]) {
        if matches!(self.reading, Reading::Waiting) && side == Side::Client {
            self.start();
        }
        match &mut self.reading {
            Reading::Stream(inspector, interest) => {
                if interest.of(side) != Need::Nothing {
                    *interest = inspector.feed(side, bytes, &mut self.events);
                }
            }
            Reading::Datagrams(inspector) => {
                if !inspector.feed(side, bytes, &mut self.events) {
                    self.reading = Reading::Over;
                }
            }
            Reading::Waiting | Reading::Over => return,
        }
        self.settle();
    }

    /// An inspector may go on only over bytes that it did not want to see.
    pub(super) fn lost(&mut self, side: Side, count: u64) {
        let Reading::Stream(inspector, interest) = &mut self.reading else { return };
        match interest.of(side) {
            Need::Nothing => return,
            Need::Skip(most) if count <= most => {
                *interest = inspector.skip(side, count, &mut self.events);
            }
            _ if self.app.is_some() => {
                self.stop("inspection stopped where bytes are missing");
                return;
            }
            _ => self.wait(),
        }
        self.settle();
    }

    pub(super) fn ended(&mut self, side: Side) {
        if let Reading::Stream(inspector, interest) = &mut self.reading {
            *interest = inspector.end(side, &mut self.events);
            self.settle();
        }
    }

    pub(super) fn found(&mut self, id: ThreatId) {
        if !self.threats.contains(&id) && self.threats.len() < MAX_THREATS {
            self.threats.push(id);
        }
    }

    pub(super) fn close(&mut self) {
        if let Reading::Datagrams(inspector) = &mut self.reading {
            inspector.end(&mut self.events);
            self.settle();
        }
        self.reading = Reading::Over;
    }

    /// Bytes of the peers that are held.
    pub(super) fn held(&self) -> usize {
        match &self.reading {
            Reading::Stream(inspector, _) => inspector.held(),
            Reading::Datagrams(_) | Reading::Waiting | Reading::Over => 0,
        }
    }

    pub(super) fn stop(&mut self, why: &'static str) {
        self.reading = Reading::Over;
        self.note = Some(why);
    }

    /// Goes on with the client's next message, if it may still be tried.
    fn wait(&mut self) {
        self.torn = true;
        let again = self.starts < MAX_STARTS;
        self.reading = if again { Reading::Waiting } else { Reading::Over };
    }

    /// Takes in what the inspector said.
    fn settle(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Application(app) => self.app = Some(app),
                Event::Unidentified if self.torn => self.wait(),
                Event::Host(host) if self.host.is_empty() => self.host = host.into(),
                Event::Sni(sni) if self.sni.is_empty() => self.sni = sni.into(),
                Event::Threat(finding) => self.found(finding.id),
                _ => {}
            }
        }
        if let Reading::Stream(_, interest) = &self.reading
            && interest.is_over()
        {
            self.reading = Reading::Over;
        }
    }
}
