//! One flow under inspection.

use std::sync::Arc;

use outrider_dpi::{DpiConfig, Event, PassiveInspector};
use outrider_model::{AppId, Side, ThreatId};
use outrider_packet::Ends;

/// Threats that are shown of one flow.
const MAX_THREATS: usize = 32;
/// A flow and what was learned of it.
#[derive(Debug)]
pub(super) struct Watched {
    config: Arc<DpiConfig>,
    port: u16,
    reading: PassiveInspector,
    events: Vec<Event>,
    pub(super) app: Option<AppId>,
    pub(super) host: String,
    pub(super) sni: String,
    pub(super) threats: Vec<ThreatId>,
    pub(super) note: Option<&'static str>,
}

impl Watched {
    pub(super) fn new(config: &Arc<DpiConfig>, ends: Ends, mid_stream: bool) -> Self {
        let port = ends.server.port();
        Self {
            config: Arc::clone(config),
            port,
            reading: PassiveInspector::new(config, ends.proto, port, mid_stream),
            events: Vec::new(),
            app: None,
            host: String::new(),
            sni: String::new(),
            threats: Vec::new(),
            note: None,
        }
    }

    pub(super) fn data(&mut self, side: Side, bytes: &[u8]) {
        self.reading
            .data((&self.config, self.port), side, bytes, &mut self.events);
        self.settle();
    }

    pub(super) fn lost(&mut self, side: Side, bytes: u64) {
        let known = self.app.is_some();
        if self.reading.lost(side, bytes, known, &mut self.events) {
            self.note = Some("inspection stopped where bytes are missing");
        }
        self.settle();
    }

    pub(super) fn ended(&mut self, side: Side) {
        self.reading.ended(side, &mut self.events);
        self.settle();
    }

    pub(super) fn found(&mut self, id: ThreatId) {
        if !self.threats.contains(&id) && self.threats.len() < MAX_THREATS {
            self.threats.push(id);
        }
    }

    pub(super) fn close(&mut self) {
        self.reading.close(&mut self.events);
        self.settle();
    }

    /// Bytes of the peers that are held.
    pub(super) fn held(&self) -> usize {
        self.reading.held()
    }

    pub(super) fn stop(&mut self, why: &'static str) {
        self.reading.stop();
        self.note = Some(why);
    }

    /// Takes in what the inspector said.
    fn settle(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Application(app) => self.app = Some(app),
                Event::Host(host) if self.host.is_empty() => self.host = host.into(),
                Event::Sni(sni) if self.sni.is_empty() => self.sni = sni.into(),
                Event::Threat(finding) => self.found(finding.id),
                _ => {}
            }
        }
    }
}
