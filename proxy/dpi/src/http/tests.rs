//! HTTP flows, well-formed and not.

use std::sync::Arc;

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    DpiConfig, Event,
    replay::{Even, replay},
};

/// Events of a flow, after making sure that cuts don't matter.
pub(super) fn events(flow: &[(Side, &[u8])]) -> Vec<Event> {
    let flow: Vec<_> = flow
        .iter()
        .map(|(side, bytes)| (*side, bytes.to_vec()))
        .collect();
    let config = Arc::new(DpiConfig::default());
    let whole = replay(&config, 80, &flow, &mut Even { size: usize::MAX, skip: false }, true);
    for size in [1, 2, 3, 5, 17, usize::MAX] {
        for skip in [false, true] {
            let cut = replay(&config, 80, &flow, &mut Even { size, skip }, true);
            assert_eq!(cut.events, whole.events, "chunks of {size}, skip {skip}");
        }
    }
    whole.events
}

fn client(bytes: &[u8]) -> Vec<Event> {
    events(&[(Side::Client, bytes)])
}

fn threats(events: &[Event]) -> Vec<(ThreatId, Side, &str)> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Threat(finding) => Some((finding.id, finding.side, &*finding.message)),
            _ => None,
        })
        .collect()
}

#[test]
fn says_host_then_application_then_request() {
    let seen = client(b"GET / HTTP/1.1\r\nHost: Example.com:80\r\n\r\n");
    let host = Event::Host("example.com".into());
    assert_eq!(seen, [host, Event::Application(AppId::HTTP), Event::Request]);
    assert_eq!(threats(&seen), []);
}
