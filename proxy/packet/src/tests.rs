//! The engine as a whole, over frames made by hand.

mod adopted;
mod properties;
mod sessions;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use outrider_model::{FlowId, Side, ThreatId};

use crate::{Ends, Engine, Event, FlowRecord, Frame, Limits, LinkType};

/// What an engine said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) streams: BTreeMap<(FlowId, bool), Vec<u8>>,
    pub(crate) findings: Vec<ThreatId>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) opened: Vec<Ends>,
    pub(crate) ends: usize,
    pub(crate) packets: u64,
}

impl Heard {
    pub(crate) fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Opened { ends, .. } => self.opened.push(ends),
            Event::Data { flow, side, bytes } => {
                self.streams
                    .entry((flow, side == Side::Client))
                    .or_default()
                    .extend(bytes);
            }
            Event::Lost { flow, side, bytes } => {
                let stream = self
                    .streams
                    .entry((flow, side == Side::Client))
                    .or_default();
                stream.extend(std::iter::repeat_n(b'?', bytes.min(1 << 20).try_into().unwrap()));
            }
            Event::Ended { .. } => self.ends += 1,
            Event::Packet(..) => self.packets += 1,
            Event::Finding { id, .. } => self.findings.push(id),
            Event::Closed(record) => self.records.push(*record),
        }
    }

    /// What a side of the only flow sent.
    pub(crate) fn text(&self, side: Side) -> &[u8] {
        assert_eq!(self.records.len(), 1, "{:?}", self.records);
        let key = (self.records[0].flow, side == Side::Client);
        self.streams.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// Feeds packets, a millisecond apart, and ends.
pub(crate) fn run(packets: &[Vec<u8>]) -> (Heard, Engine) {
    run_at(packets, Duration::from_millis(1))
}

pub(crate) fn run_at(packets: &[Vec<u8>], step: Duration) -> (Heard, Engine) {
    let mut engine = Engine::new(Limits::default());
    let mut heard = Heard::default();
    let mut at = Duration::from_secs(1_000);
    for packet in packets {
        let frame = Frame { link: LinkType::Raw, at, bytes: packet, wire: packet.len() };
        engine.feed(&frame, &mut |event| heard.hear(event));
        at += step;
    }
    engine.finish(&mut |event| heard.hear(event));
    assert_eq!((engine.open(), engine.held()), (0, 0));
    (heard, engine)
}

pub(crate) fn client() -> SocketAddr {
    "10.0.0.1:40000".parse().unwrap()
}

pub(crate) fn server() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}
