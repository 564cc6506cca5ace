//! Threats become events, once though both ends of a flow report them.
//!
//! The server's word is told as it comes, and so is what a client's proxy stopped. What a client's
//! proxy let pass on to a server whose own proxy answers is held back until that one had the time to
//! say the same; as many findings as the server's proxy has more of are left to its word then, and
//! only the others are told. So nobody's word keeps the server's back.

use std::{collections::VecDeque, time::Duration};

use outrider_learn::Endpoint;
use outrider_wire::ThreatLog;
use tokio::time::Instant;

use super::{State, events::Body, threats};
use crate::{
    counts::{Counts, Dropped, Received},
    mailbox::watch::Workload,
};

/// How much later than the client's the server's proxy may say it: both look every 2 s, and send
/// what they have once what they sent before is acknowledged.
pub(crate) const HOLD: Duration = Duration::from_secs(5);
/// Reports that are held back at a time; what there is no room for is told at once.
const MAX_HELD: usize = 16_384;

/// What a client's proxies said and was not told yet, in order.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<Report>);

#[derive(Debug)]
struct Report {
    due: Instant,
    uid: String,
    key: String,
    count: u64,
}

impl State {
    /// Enters one log of a workload.
    pub(super) fn enter_threat(&mut self, workload: &Workload, log: &ThreatLog, counts: &Counts) {
        counts.received(Received::Threats, 1);
        let Some((key, fresh)) = threats::read(log, &workload.name) else {
            return counts.dropped(Dropped::BadRow, 1);
        };
        let count = fresh.threat.count;
        let waits = fresh.was_passed_on() && self.answers(&fresh.threat.server_ip);
        let gone = self
            .threats
            .enter(&workload.uid, key.clone(), fresh, threats::merge);
        counts.dropped(Dropped::ThreatsFull, gone);
        let uid = workload.uid.clone();
        if waits && self.held.0.len() < MAX_HELD {
            let due = Instant::now() + HOLD;
            self.held.0.push_back(Report { due, uid, key, count });
        } else {
            self.tell(&uid, &key, count, counts);
        }
    }

    /// Tells what was held back for long enough.
    pub(super) fn tell_held(&mut self, now: Instant, counts: &Counts) {
        while let Some(Report { uid, key, count, .. }) =
            self.held.0.pop_front_if(|report| report.due <= now)
        {
            self.tell(&uid, &key, count, counts);
        }
    }

    /// Holds back what was not decided on when the bridge ended.
    pub(super) fn hold_undecided(&mut self) {
        let due = Instant::now() + HOLD;
        let undecided = self.threats.iter().filter(|(.., known)| known.open() > 0);
        let reports = undecided.map(|(uid, key, known)| Report {
            due,
            uid: uid.into(),
            key: key.into(),
            count: known.open(),
        });
        self.held = Held(reports.collect());
    }

    /// Decides on some findings of a record.
    fn tell(&mut self, uid: &str, key: &str, count: u64, counts: &Counts) {
        let Some(known) = self.threats.get(uid, key) else {
            // It made room for others meanwhile: nobody is told.
            return counts.dropped(Dropped::ThreatsUntold, count);
        };
        let count = count.min(known.open());
        let covered = if known.was_passed_on() { self.left_to_server(uid, known) } else { 0 };
        let told = count.saturating_sub(covered);
        let mut threat = known.threat.clone();
        if let Some(known) = self.threats.change(uid, key) {
            known.settle(count, told);
        }
        if told > 0 {
            threat.count = told;
            self.events.publish(Body::Threat(threat));
        }
    }

    /// How many findings of the server's proxy stand for none of the client's yet.
    fn left_to_server(&self, client: &str, known: &threats::Reported) -> u64 {
        let Some(server) = self.workload_at(&known.threat.server_ip) else { return 0 };
        let prefix = known.prefix();
        let said = self.threats.with_prefix(&server, &prefix);
        let said: u64 = said
            .filter(|one| one.inbound)
            .map(|one| one.threat.count)
            .sum();
        let own = self.threats.with_prefix(client, &prefix);
        said.saturating_sub(own.map(threats::Reported::covered).sum())
    }

    /// Whether the proxy of the workload at that address answers.
    fn answers(&self, address: &str) -> bool {
        self.workload_at(address)
            .and_then(|uid| self.links.get(&*uid))
            .is_some_and(super::LinkHandle::is_connected)
    }

    fn workload_at(&self, address: &str) -> Option<std::sync::Arc<str>> {
        match self.learner.directory().endpoint(address.parse().ok()?) {
            Endpoint::Workload(uid) => Some(uid),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
