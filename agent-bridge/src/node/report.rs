//! Reports in: what a mailbox told, entered where it belongs.

use std::sync::Arc;

use outrider_api::Flow;
use outrider_learn::Totals;
use outrider_model::PolicyAction;
use outrider_wire::{Connection, Notification, ext::SampleFlow};

use super::{MAX_COMMANDS, Node, State, events::Body, learned};
use crate::{
    counts::{Counts, Dropped, Received},
    mailbox::{
        receive::{BatchId, Report},
        watch::Workload,
    },
};

impl Node {
    /// Enters one report. A batch that was entered before changes nothing, and is acknowledged
    /// again: the acknowledgement may have been lost.
    pub(super) fn enter(&self, report: &Report) {
        let mut state = self.state.lock();
        let Some(workload) = state.roster.get(&report.uid).cloned() else {
            self.counts.dropped(Dropped::NoWorkload, 1);
            return;
        };
        if let Some(batch) = report.batch {
            let new = state.begin_batch(&report.uid, batch, &self.counts);
            state.note_unacked(&report.uid, batch, &self.counts);
            if !new {
                self.counts.dropped(Dropped::DuplicateBatch, 1);
                return;
            }
            self.counts.received(Received::Batches, 1);
        }
        state.version += 1;
        drop(state);
        // Names and evidence add to what the rows begin.
        let is_rows = |note: &&Notification| matches!(note, Notification::Connections(_));
        let rows = report.notes.iter().filter(is_rows);
        let others = report.notes.iter().filter(|note| !is_rows(note));
        // Nobody waits for the state longer than a datagram takes. Nothing is stored meanwhile.
        for note in rows.chain(others) {
            let mut state = self.state.lock();
            let before = state.learner.totals();
            state.enter(&report.uid, &workload, note, &self.counts);
            count(&self.counts, &before, &state.learner.totals());
        }
    }
}

/// Counts what a report did to the sums.
fn count(counts: &Counts, before: &Totals, after: &Totals) {
    counts
        .sessions
        .inc_by(after.sessions.saturating_sub(before.sessions));
    counts
        .bytes
        .inc_by(after.bytes.saturating_sub(before.bytes));
    let full = |why, of: fn(&Totals) -> u64| {
        counts.dropped(why, of(after).saturating_sub(of(before)));
    };
    full(Dropped::ConversationsFull, |totals| totals.evicted);
    full(Dropped::ViolationsFull, |totals| totals.evicted_kinds);
    full(Dropped::CandidatesFull, |totals| totals.evicted_candidates);
    full(Dropped::RulesFull, |totals| totals.refused_rules);
}

impl State {
    /// Has a batch acknowledged once it is stored; not more at a time than a link takes.
    fn note_unacked(&mut self, uid: &str, batch: BatchId, counts: &Counts) {
        let waiting = self.unacked.entry(uid.to_owned()).or_default();
        if waiting.len() < MAX_COMMANDS {
            waiting.push(batch);
        } else {
            counts.dropped(Dropped::AckNotSent, 1);
        }
    }

    /// Notes a batch; `false` if it, or a later one of the same proxy's life, was here before.
    pub(super) fn begin_batch(&mut self, uid: &str, batch: BatchId, counts: &Counts) -> bool {
        match self.batches.get(uid) {
            Some(known) if known.instance == batch.instance && known.seq >= batch.seq => {
                return false;
            }
            Some(known) if known.instance != batch.instance => {
                counts.proxy_restarts.inc();
                *self.restarts.entry(uid.to_owned()).or_default() += 1;
                tracing::warn!(
                    uid,
                    "a proxy was restarted: what it had not reported by then is not known"
                );
            }
            _ => {}
        }
        self.batches.insert(uid.to_owned(), batch);
        self.unsaved_batches.insert(uid.to_owned());
        true
    }

    fn enter(&mut self, uid: &Arc<str>, workload: &Workload, note: &Notification, counts: &Counts) {
        match note {
            Notification::Connections(list) => {
                counts.received(Received::Rows, list.rows.len() as u64);
                list.rows
                    .iter()
                    .for_each(|row| self.enter_row(uid, workload, row, counts));
            }
            Notification::ThreatLog(log) => self.enter_threat(workload, log, counts),
            Notification::Evidence(evidence) => {
                counts.received(Received::Samples, evidence.flows.len() as u64);
                evidence
                    .flows
                    .iter()
                    .for_each(|flow| self.enter_sample(uid, workload, flow, counts));
            }
            Notification::AppUpdate(update) => self.enter_ports(workload, update, counts),
            Notification::FqdnUpdate(_)
            | Notification::IpFqdnUpdate(_)
            | Notification::IpFqdnRelease(_) => self.enter_names(workload, note, counts),
            // The assembler keeps these to itself.
            Notification::Batch(_) => {}
        }
    }

    fn enter_row(
        &mut self,
        uid: &Arc<str>,
        workload: &Workload,
        found: &Connection,
        counts: &Counts,
    ) {
        let Some(mut row) = learned::row(uid, found) else {
            counts.dropped(Dropped::BadRow, 1);
            return;
        };
        if !is_announcement(found) {
            self.controller
                .enter((&row, found), workload, self.learner.directory());
        }
        // Of what is outside policy nobody's word is taken.
        if row.inbound && !row.action.violates() {
            row.app = self.spoken(workload, (row.proto, row.port), row.app);
        }
        let learner = &self.learner;
        let teaches = || learner.teaches(&row);
        self.cluster.seen.note(&row, teaches, learner.directory());
        if self.learner.observe(&row) {
            self.policy_changed();
        }
    }

    fn enter_sample(
        &mut self,
        uid: &Arc<str>,
        workload: &Workload,
        flow: &SampleFlow,
        counts: &Counts,
    ) {
        let mut example = learned::sample(uid, flow);
        if flow.inbound && !flow.action.known().is_some_and(PolicyAction::violates) {
            let at = (flow.proto, flow.server.port());
            example.app = self.spoken(workload, at, flow.app);
        }
        self.learner.sample(&example);
        let flow = Arc::new(sample(workload, flow));
        let gone = self.samples.enter(&workload.uid, Arc::clone(&flow));
        counts.dropped(Dropped::SamplesFull, gone);
        self.events.publish(Body::Flow(flow));
    }
}

/// Whether a row says no more than that flows are there: a controller would learn from it that any application is meant.
fn is_announcement(row: &Connection) -> bool {
    row.sessions == 0 && row.bytes == 0 && row.violates == 0 && row.severity.0 == 0
}

fn sample(workload: &Workload, flow: &SampleFlow) -> Flow {
    Flow {
        workload: workload.name.clone(),
        client: flow.client.to_string(),
        server: flow.server.to_string(),
        app: flow.app.to_string(),
        host: flow.host.clone(),
        sni: flow.sni.clone(),
        action: action(flow.action.known()),
        rule: flow.rule.0,
        bytes_client: flow.bytes_client,
        bytes_server: flow.bytes_server,
        at: flow.at,
    }
}

/// What people read for an action; a newer proxy may know more of them.
pub(super) fn action(action: Option<PolicyAction>) -> String {
    action.map_or("unknown", PolicyAction::label).into()
}
