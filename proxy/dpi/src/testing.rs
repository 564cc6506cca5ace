//! What the unit tests of all protocols share.

use std::sync::Arc;

use outrider_model::{Side, ThreatId};

use crate::{
    DpiConfig, Event,
    replay::{Even, Seen, replay},
};

/// Every detector on.
pub(crate) fn all_on() -> Arc<DpiConfig> {
    let config = DpiConfig::default();
    Arc::new(ThreatId::all().fold(config, |config, threat| config.with_threat(threat, true)))
}

/// Events of a flow with every detector on, after making sure that cuts don't matter.
pub(crate) fn events(port: u16, flow: &[(Side, &[u8])]) -> Vec<Event> {
    seen(&all_on(), port, flow).events
}

/// What a replay saw, after making sure that cuts don't matter.
pub(crate) fn seen(config: &Arc<DpiConfig>, port: u16, flow: &[(Side, &[u8])]) -> Seen {
    let flow: Vec<_> = flow
        .iter()
        .map(|(side, bytes)| (*side, bytes.to_vec()))
        .collect();
    let whole = replay(config, port, &flow, &mut Even { size: usize::MAX, skip: false }, true);
    for size in [1, 2, 3, 5, 17, 1000, usize::MAX] {
        for skip in [false, true] {
            let cut = replay(config, port, &flow, &mut Even { size, skip }, true);
            assert_eq!(cut.events, whole.events, "chunks of {size}, skip {skip}");
        }
    }
    whole
}

/// The findings among events.
pub(crate) fn threats(events: &[Event]) -> Vec<(ThreatId, Side, &str)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Threat(finding) => Some((finding.id, finding.side, &*finding.message)),
            _ => None,
        })
        .collect()
}
