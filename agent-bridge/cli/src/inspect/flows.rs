//! The engine's flows, and what the inspectors say of their bytes.

mod watched;

use std::{collections::HashMap, sync::Arc};

use outrider_dpi::DpiConfig;
use outrider_model::{AppId, FlowId, IpProto};
use outrider_packet::{Event, FlowRecord};

use super::row::{FlowRow, notes};
use watched::Watched;

/// Bytes that all inspectors may hold.
const MAX_HELD: usize = 64 << 20;

/// The flows that are open, and the rows of those that are over.
#[derive(Debug, Default)]
pub(super) struct Flows {
    config: Arc<DpiConfig>,
    open: HashMap<FlowId, Watched>,
    held: usize,
    pub(super) rows: Vec<FlowRow>,
    /// Findings that belong to no flow.
    pub(super) loose: u64,
}

impl Flows {
    /// Takes one event of the engine.
    pub(super) fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { flow, ends, mid_stream } => {
                let watched = Watched::new(&self.config, ends, mid_stream);
                self.open.insert(flow, watched);
            }
            Event::Data { flow, side, bytes } => {
                self.with(flow, |watched| watched.data(side, bytes))
            }
            Event::Lost { flow, side, bytes } => {
                self.with(flow, |watched| watched.lost(side, bytes))
            }
            Event::Ended { flow, side } => self.with(flow, |watched| watched.ended(side)),
            Event::Finding { flow: Some(flow), id, .. } => {
                if self.config.is_on(id) {
                    self.with(flow, |watched| watched.found(id));
                }
            }
            Event::Finding { flow: None, .. } => self.loose = self.loose.saturating_add(1),
            Event::Packet(..) => {}
            Event::Closed(record) => self.close(record),
        }
    }

    /// Lets a flow do something, and sees to the bytes that all inspectors hold.
    fn with(&mut self, flow: FlowId, act: impl FnOnce(&mut Watched)) {
        let Some(watched) = self.open.get_mut(&flow) else { return };
        let before = watched.held();
        act(watched);
        self.held = self
            .held
            .saturating_sub(before)
            .saturating_add(watched.held());
        if self.held > MAX_HELD {
            self.held = self.held.saturating_sub(watched.held());
            watched.stop("inspection stopped: too much to hold");
        }
    }

    fn close(&mut self, record: &FlowRecord) {
        let Some(mut watched) = self.open.remove(&record.flow) else { return };
        self.held = self.held.saturating_sub(watched.held());
        watched.close();
        let app = watched.app.unwrap_or(AppId::UNKNOWN);
        let mut notes = notes(record);
        notes.extend(watched.note.map(str::to_owned));
        self.rows.push(FlowRow {
            flow: record.flow.0,
            proto: proto(record.ends.proto),
            client: record.ends.client.to_string(),
            server: record.ends.server.to_string(),
            app: app.to_string(),
            app_id: app.0,
            host: watched.host,
            sni: watched.sni,
            threats: watched.threats.into_iter().map(Into::into).collect(),
            client_bytes: record.client.bytes,
            server_bytes: record.server.bytes,
            notes,
        });
    }
}

/// Names of protocols that the vocabulary leaves as numbers.
fn proto(proto: IpProto) -> String {
    match proto.0 {
        2 => "igmp".into(),
        4 => "ipip".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        51 => "ah".into(),
        89 => "ospf".into(),
        103 => "pim".into(),
        112 => "vrrp".into(),
        _ => proto.to_string(),
    }
}
