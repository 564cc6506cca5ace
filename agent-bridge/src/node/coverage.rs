//! How much of the node is covered: proxies, their tiers and policy, refused mailboxes.

use std::collections::BTreeMap;

use outrider_api::{Coverage, ProxyState};

use super::State;
use crate::{
    counts::Unserved,
    mailbox::{link::LinkState, watch::Workload},
};

/// What a proxy may say it sees and can stop. It is a pod's word: anything else is [`UNSAID`].
pub(crate) const TIERS: [&str; 9] = [
    "observe",
    "relay",
    "tap",
    "relay+tap",
    "queue",
    "relay+queue",
    "tap+queue",
    "relay+tap+queue",
    UNSAID,
];
/// A tier that is not said, as by a data path that is not ours.
const UNSAID: &str = "unsaid";

impl State {
    /// All of it.
    pub(super) fn coverage(&self) -> Coverage {
        let mut found = Coverage {
            generation: self.generation,
            candidates: self.learner.candidates().count() as u64,
            ..Coverage::default()
        };
        for workload in self.roster.all() {
            self.cover(workload, &mut found);
        }
        for rule in self.learner.rules() {
            count(&mut found.learned, self.learner.mode(&rule.key.to).name());
        }
        for refused in &self.refused {
            count(&mut found.refused, refused.why.label());
        }
        for _ in &self.broken {
            count(&mut found.refused, Unserved::Mailbox.label());
        }
        found
    }

    fn cover(&self, workload: &Workload, found: &mut Coverage) {
        count(&mut found.modes, self.mode_of(&workload.uid, &workload.group()).name());
        let Some(link) = self.links.get(&workload.uid) else {
            found.never += 1;
            return;
        };
        let state = link.state.borrow();
        match proxy(&state) {
            ProxyState::Connected => {
                found.connected += 1;
                count(&mut found.tiers, tier(&state));
            }
            ProxyState::Down => found.down += 1,
            ProxyState::Never => found.never += 1,
        }
        found.refusing += u64::from(state.connected && state.refused.is_some());
        drop(state);
        if link.is_behind() {
            found.lagging += 1;
            found.lag = found.lag.max(link.published.elapsed().as_secs());
        }
    }
}

/// What a link says of its proxy.
pub(super) fn proxy(state: &LinkState) -> ProxyState {
    match (state.connected, state.connects) {
        (true, _) => ProxyState::Connected,
        (false, 0) => ProxyState::Never,
        (false, _) => ProxyState::Down,
    }
}

/// What a proxy says it sees and can stop.
pub(super) fn tier(state: &LinkState) -> &'static str {
    let said = state.proxy.as_ref().map(|proxy| proxy.tier.as_str());
    TIERS
        .into_iter()
        .find(|tier| said == Some(tier))
        .unwrap_or(UNSAID)
}

fn count(counts: &mut BTreeMap<String, u64>, label: &str) {
    match counts.get_mut(label) {
        Some(count) => *count += 1,
        None => drop(counts.insert(label.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outrider_wire::ext::Status;

    use super::*;

    #[test]
    fn a_tier_is_one_of_a_closed_set_whatever_a_pod_says() {
        let said = |tier: &str| {
            let proxy = Status { tier: tier.into(), ..Status::default() };
            tier_of(Some(Arc::new(proxy)))
        };
        assert_eq!(said("relay+tap"), "relay+tap");
        assert_eq!(said("no such tier"), UNSAID);
        assert_eq!(tier_of(None), UNSAID);
    }

    fn tier_of(proxy: Option<Arc<Status>>) -> &'static str {
        tier(&LinkState { connected: true, proxy, ..LinkState::default() })
    }
}
