//! Recent flows as examples: the newest of each workload, and so many bytes of all.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use outrider_api::Flow;

/// Flows that are kept of a workload; its own oldest makes room.
const MAX_SAMPLES: usize = 256;
/// Bytes of all flows, about; the oldest of the workload that has most make room.
const MAX_BYTES: usize = 16 << 20;
/// What a flow takes besides its texts.
const FIXED: usize = 320;

/// Recent flows by workload.
#[derive(Debug, Default)]
pub(super) struct Samples {
    of: BTreeMap<String, Share>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Share {
    flows: VecDeque<Arc<Flow>>,
    bytes: usize,
}

impl Samples {
    /// Enters a flow; says how many of others had to make room.
    pub(super) fn enter(&mut self, uid: &str, flow: Arc<Flow>) -> u64 {
        if self
            .of
            .get(uid)
            .is_some_and(|share| share.flows.len() >= MAX_SAMPLES)
        {
            self.drop_oldest(uid);
        }
        let (share, size) = (self.of.entry(uid.to_owned()).or_default(), size(&flow));
        share.flows.push_back(flow);
        share.bytes = share.bytes.saturating_add(size);
        self.bytes = self.bytes.saturating_add(size);
        let mut gone = 0;
        while self.bytes > MAX_BYTES {
            let largest = self.of.iter().max_by_key(|(_, share)| share.bytes);
            let Some(largest) = largest.map(|(uid, _)| uid.clone()) else { break };
            self.drop_oldest(&largest);
            gone += 1;
        }
        gone
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Flow>> {
        self.of.values().flat_map(|share| &share.flows)
    }

    /// The workload is gone.
    pub(super) fn forget(&mut self, uid: &str) {
        let gone = self.of.remove(uid).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(gone.bytes);
    }

    fn drop_oldest(&mut self, uid: &str) {
        let Some(share) = self.of.get_mut(uid) else { return };
        let size = share.flows.pop_front().map_or(0, |flow| size(&flow));
        share.bytes = share.bytes.saturating_sub(size);
        self.bytes = self.bytes.saturating_sub(size);
    }
}

fn size(flow: &Flow) -> usize {
    let texts = [&flow.workload, &flow.client, &flow.server, &flow.app, &flow.host, &flow.sni];
    texts
        .into_iter()
        .map(String::len)
        .fold(FIXED, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(at: u64, length: usize) -> Arc<Flow> {
        Arc::new(Flow {
            workload: String::new(),
            client: String::new(),
            server: String::new(),
            app: String::new(),
            host: "h".repeat(length),
            sni: String::new(),
            action: String::new(),
            rule: 0,
            bytes_client: 0,
            bytes_server: 0,
            at,
        })
    }

    #[test]
    fn a_workload_keeps_its_newest() {
        let mut samples = Samples::default();
        for at in 0..300 {
            assert_eq!(samples.enter("pod", flow(at, 10)), 0);
        }
        let kept: Vec<_> = samples.all().map(|flow| flow.at).collect();
        assert_eq!((kept.len(), kept[0], kept[255]), (MAX_SAMPLES, 44, 299));
        assert_eq!(samples.bytes, 256 * (FIXED + 10));
        samples.forget("pod");
        assert_eq!((samples.all().count(), samples.bytes), (0, 0));
    }

    #[test]
    fn all_have_a_bound_in_bytes_and_who_has_most_makes_room() {
        let mut samples = Samples::default();
        samples.enter("quiet", flow(1, 8_000));
        let mut gone = 0;
        for pod in 0..16 {
            for at in 0..256 {
                gone += samples.enter(&format!("noisy-{pod}"), flow(at, 8_000));
            }
        }
        assert!(samples.bytes <= MAX_BYTES && samples.bytes > MAX_BYTES - 9_000);
        assert_eq!(gone + samples.all().count() as u64, 16 * 256 + 1);
        assert!(samples.of.contains_key("quiet") && samples.of["quiet"].flows.len() == 1);
    }
}
