//! The learning engine, in the node's words.

use std::collections::BTreeMap;

use outrider_api::{Conversation, Rule};
use outrider_model::Mode;
use outrider_policy::PolicySpec;
use outrider_wire::{Connection, ConnectionFlags, ext::SampleFlow};

use super::roster::Roster;
use crate::{counts::Dropped, mailbox::watch::Workload, store::Change};

#[derive(Debug, Default)]
pub(super) struct Learned {
    conversations: BTreeMap<String, Conversation>,
}

pub(super) struct Entered {
    pub(super) sessions: u64,
    pub(super) bytes: u64,
    pub(super) rules_changed: bool,
}

impl Learned {
    pub(super) fn row(
        &mut self,
        _workload: &Workload,
        row: &Connection,
        roster: &Roster,
    ) -> Result<Entered, Dropped> {
        let (Some(client), Some(server)) = (row.client(), row.server()) else {
            return Err(Dropped::BadRow);
        };
        let inbound = row.flags.contains(ConnectionFlags::INGRESS);
        if !inbound && roster.at(server).is_some() {
            return Ok(Entered { sessions: 0, bytes: 0, rules_changed: false });
        }
        let (client, server) = (roster.call(client), roster.call(server));
        let app = row.application.to_string();
        let key = format!("{client} {server} {app} {}/{}", row.ip_proto, row.server_port);
        let fresh = || Conversation {
            client,
            server,
            app,
            proto: row.ip_proto.to_string(),
            port: row.server_port,
            sessions: 0,
            bytes: 0,
            violations: 0,
            threats: 0,
            action: String::new(),
            first_seen: row.first_seen_at.into(),
            last_seen: 0,
            names: vec![],
        };
        let known = self.conversations.entry(key).or_insert_with(fresh);
        known.sessions += u64::from(row.sessions);
        known.bytes += u64::from(row.bytes);
        known.violations += u64::from(row.violates);
        known.action = super::report::action(row.policy_action.known());
        known.last_seen = row.last_seen_at.into();
        Ok(Entered { sessions: row.sessions.into(), bytes: row.bytes.into(), rules_changed: false })
    }

    pub(super) fn sample(&mut self, _: &Workload, _: &SampleFlow, _: &Roster) -> bool {
        false
    }

    pub(super) fn conversations(&self) -> Vec<Conversation> {
        self.conversations.values().cloned().collect()
    }

    pub(super) fn conversation_count(&self) -> usize {
        self.conversations.len()
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        Vec::new()
    }

    pub(super) fn rule_count(&self) -> usize {
        0
    }

    pub(super) fn compile(
        &self,
        workload: &Workload,
        _roster: &Roster,
        mode_of: impl Fn(&str) -> Mode,
    ) -> PolicySpec {
        PolicySpec {
            default_action: mode_of(&workload.group).default_action(),
            inbound: true,
            outbound: true,
            rules: Vec::new(),
            grace: false,
        }
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        Vec::new()
    }

    pub(super) fn restore(&mut self, _key: &[u8], _value: &[u8]) -> bool {
        true
    }
}
