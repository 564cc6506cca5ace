//! Reports in: what a mailbox told, entered where it belongs.

use outrider_api::Flow;
use outrider_wire::{Connection, Notification, ext::SampleFlow};

use super::{Node, State, threats, violations};
use crate::{
    counts::{Counts, Dropped, Received},
    mailbox::{
        receive::{BatchId, Report},
        watch::Workload,
    },
};

/// Recent flows kept per workload.
const MAX_SAMPLES: usize = 256;

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
            let new = state.begin_batch(&report.uid, batch);
            state.unacked.push((report.uid.to_string(), batch));
            if !new {
                self.counts.dropped(Dropped::DuplicateBatch, 1);
                return;
            }
            self.counts.received(Received::Batches, 1);
        }
        state.version += 1;
        for note in &report.notes {
            state.enter(&workload, note, &self.counts);
        }
    }
}

impl State {
    /// Notes a batch; `false` if it, or a later one of the same proxy's life, was here before.
    fn begin_batch(&mut self, uid: &str, batch: BatchId) -> bool {
        let known = self.batches.get(uid);
        if known.is_some_and(|known| known.instance == batch.instance && known.seq >= batch.seq) {
            return false;
        }
        self.batches.insert(uid.to_owned(), batch);
        self.unsaved_batches.insert(uid.to_owned());
        true
    }

    fn enter(&mut self, workload: &Workload, note: &Notification, counts: &Counts) {
        match note {
            Notification::Connections(list) => {
                counts.received(Received::Rows, list.rows.len() as u64);
                list.rows
                    .iter()
                    .for_each(|row| self.enter_row(workload, row, counts));
            }
            Notification::ThreatLog(log) => {
                counts.received(Received::Threats, 1);
                match threats::read(log, &workload.name) {
                    Some((key, threat)) => {
                        self.threats
                            .enter(&workload.uid, key, threat, threats::merge);
                    }
                    None => counts.dropped(Dropped::BadRow, 1),
                }
            }
            Notification::Evidence(evidence) => {
                counts.received(Received::Samples, evidence.flows.len() as u64);
                evidence
                    .flows
                    .iter()
                    .for_each(|flow| self.enter_sample(workload, flow));
            }
            Notification::AppUpdate(_) => counts.received(Received::AppUpdates, 1),
            Notification::FqdnUpdate(_)
            | Notification::IpFqdnUpdate(_)
            | Notification::IpFqdnRelease(_) => counts.received(Received::Names, 1),
            // The assembler keeps these to itself.
            Notification::Batch(_) => {}
        }
    }

    fn enter_row(&mut self, workload: &Workload, row: &Connection, counts: &Counts) {
        if let Some((key, violation)) = violations::read(row, &self.roster) {
            self.violations
                .enter(&workload.uid, key, violation, violations::merge);
        }
        match self.learned.row(workload, row, &self.roster) {
            Ok(entered) => {
                counts.sessions.inc_by(entered.sessions);
                counts.bytes.inc_by(entered.bytes);
                if entered.rules_changed {
                    self.policy_changed();
                }
            }
            Err(reason) => counts.dropped(reason, 1),
        }
    }

    fn enter_sample(&mut self, workload: &Workload, flow: &SampleFlow) {
        if self.learned.sample(workload, flow, &self.roster) {
            self.policy_changed();
        }
        let samples = self.samples.entry(workload.uid.clone()).or_default();
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample(workload, flow));
    }
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
pub(super) fn action(action: Option<outrider_model::PolicyAction>) -> String {
    action
        .map_or("unknown", outrider_model::PolicyAction::label)
        .into()
}
