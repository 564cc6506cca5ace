//! What bridges are told: whom a change concerns, who asked, and what is to be said to each.

use std::sync::Arc;

use outrider_api::cluster::Update;
use parking_lot::Mutex;

use super::{Batches, Link, Links};
use crate::controller::{
    interest::MAX_ASKED,
    learned::address,
    plan::{Plan, Pod},
    published::{Change, Touched, index},
    status::Thing,
};

impl Links {
    /// Puts a change in force, or all there is in place of what was, and wakes the links that it may concern.
    pub(in crate::controller) fn publish(&self, whole: bool, change: Change, plan: &Plan) {
        let mut touched = Touched::default();
        let stale = if whole { Vec::new() } else { things(&change) };
        {
            let mut now = self.published.write();
            if whole {
                let before = std::mem::take(&mut *now);
                now.revision = before.revision;
                let is_left = |pod: &Arc<Pod>| !change.pods.contains_key(&pod.uid);
                touched.left = before.pods.into_values().filter(is_left).collect();
                touched.all = true;
            }
            let fresh = now.take(change, plan);
            touched.left.extend(fresh.left);
            touched.all |= fresh.all;
            (touched.nodes, touched.addresses) = (fresh.nodes, fresh.addresses);
        }
        self.remember(&touched.left);
        self.wake(touched);
        match whole {
            true => self.stale.lock().note_all(),
            false => self.note(stale),
        }
    }

    /// Wakes the links that something may concern.
    fn wake(&self, touched: Touched) {
        let wake = |link: &Mutex<Link>| {
            let mut link = link.lock();
            link.stale = true;
            link.wake.notify_one();
        };
        if touched.all {
            return self.all.lock().values().for_each(|link| wake(link));
        }
        let mut nodes = touched.nodes;
        {
            let askers = self.askers.lock();
            let asked = touched.addresses.iter();
            nodes.extend(
                asked
                    .flat_map(|address| index::of(&askers, address))
                    .cloned(),
            );
        }
        let all = self.all.lock();
        let links = nodes.iter().filter_map(|node| all.get(node));
        links.for_each(|link| wake(link));
    }

    /// Notes questions.
    pub(in crate::controller) fn ask(
        &self,
        node: &Arc<str>,
        link: &Arc<Mutex<Link>>,
        addresses: &[Vec<u8>],
    ) {
        let read = addresses.iter().take(MAX_ASKED);
        let read: Vec<_> = read.filter_map(|bytes| address(bytes)).collect();
        let all = self.all.lock();
        // One that has another in its place asks no more.
        if !all
            .get(node)
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            return;
        }
        let mut link = link.lock();
        let forgotten = link.known.ask(read.iter().copied());
        self.counts.forgotten.inc_by(forgotten.len() as u64);
        let mut askers = self.askers.lock();
        for address in read.iter().chain(&forgotten) {
            match link.known.asks(address) {
                true => index::enter(&mut askers, *address, node),
                false => index::leave(&mut askers, address, node),
            }
        }
        drop((askers, all));
        link.questions.extend(read);
        link.questions.truncate(MAX_ASKED);
        link.stale = true;
        link.wake.notify_one();
    }

    /// What is to be said to a node now.
    pub(in crate::controller) fn update(
        &self,
        node: &Arc<str>,
        link: &Mutex<Link>,
    ) -> Option<Update> {
        let now = self.published.read();
        let mut link = link.lock();
        if !std::mem::take(&mut link.stale) {
            return None;
        }
        let questions = std::mem::take(&mut link.questions);
        let before = link.known.left_out;
        let update = link.known.update(node, &now, &questions);
        let more = link.known.left_out.saturating_sub(before);
        self.counts.services_left_out.inc_by(more as u64);
        let told = update.as_ref().map(|update| link.known.told(node, update));
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            self.note(told);
            self.news.notify_one();
        }
        update
    }

    /// A link that is among the others no more: what is left of it.
    pub(super) fn part(&self, node: &Arc<str>, link: &Mutex<Link>) -> Batches {
        let mut link = link.lock();
        let mut askers = self.askers.lock();
        let asked = link.known.asked();
        asked.for_each(|address| index::leave(&mut askers, address, node));
        link.leave()
    }
}

/// Of what something else may be to be said after a change.
fn things(change: &Change) -> Vec<Thing> {
    let objects = change.plan.verdicts.iter().cloned().map(Thing::Object);
    let rules = change.plan.rules.iter().copied().map(Thing::Rule);
    let pods = change.pods.keys().cloned().map(Thing::Workload);
    objects.chain(rules).chain(pods).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use outrider_telemetry::Registry;

    use super::*;
    use crate::controller::counts::Counts;

    fn comes(name: &str, address: IpAddr) -> Change {
        let uid: Arc<str> = name.into();
        let pod = Pod { uid: Arc::clone(&uid), addresses: vec![address], ..Pod::default() };
        Change { pods: [(uid, Some(Arc::new(pod)))].into(), ..Change::default() }
    }

    #[test]
    fn who_asked_for_an_address_hears_whose_it_is_until_it_leaves() {
        let links = Links::new(Counts::register(&Registry::default()).unwrap());
        let nodes: [Arc<str>; 2] = ["asks".into(), "asks-not".into()];
        let [asks, other] = nodes.each_ref().map(|node| links.enter(node, "1"));
        let address = IpAddr::from([192, 0, 2, 7]);
        links.ask(&nodes[0], &asks, &[vec![192, 0, 2, 7], vec![1, 2]]);
        let told = |at: usize, link| links.update(&nodes[at], link).is_some();
        assert!(told(0, &asks) && told(1, &other));
        links.publish(false, comes("p", address), &Plan::default());
        assert!(told(0, &asks) && !other.lock().stale);
        let again = links.enter(&nodes[0], "1");
        assert!(links.askers.lock().is_empty(), "it asks anew");
        links.ask(&nodes[0], &asks, &[vec![192, 0, 2, 7]]);
        assert!(links.askers.lock().is_empty(), "the link that is no more asks nothing");
        links.ask(&nodes[0], &again, &[vec![192, 0, 2, 7]]);
        links.leave(&nodes[0], &again);
        assert!(links.askers.lock().is_empty());
    }

    #[test]
    fn what_is_forgotten_wakes_nobody() {
        let links = Links::new(Counts::register(&Registry::default()).unwrap());
        let node: Arc<str> = "n".into();
        let link = links.enter(&node, "1");
        let many: Vec<_> = (0..=u32::try_from(MAX_ASKED).unwrap())
            .map(|at| at.to_be_bytes().to_vec())
            .collect();
        links.ask(&node, &link, &many[..MAX_ASKED]);
        links.ask(&node, &link, &many[MAX_ASKED..]);
        assert_eq!(links.askers.lock().len(), MAX_ASKED);
    }
}
