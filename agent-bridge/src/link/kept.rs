//! What the controller said, element by element, as it is in the store: so it is in force after a restart without
//! the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use outrider_api::cluster::{Mode as WireMode, Rule, Service, SetChange, Update, Workload};
use outrider_learn::{ClusterChange, Group, Learner};
use outrider_model::RuleId;
use prost::Message;

use super::read;
use crate::store::{Change, Table};

/// Internal networks that are taken.
const MAX_INTERNAL: usize = 4_096;
/// Key of [`Head`].
const HEAD: &[u8] = b"head";

/// What the whole of it is.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    epoch: String,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(string, repeated, tag = "3")]
    internal: Vec<String>,
}

/// Everything that is in force of what the controller said.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    head: Head,
    workloads: BTreeMap<String, Workload>,
    sets: BTreeMap<String, Members>,
    rules: BTreeMap<u32, Rule>,
    modes: BTreeMap<String, WireMode>,
    /// By `<namespace>/<name>`.
    services: BTreeMap<String, Service>,
    /// Keys of rows that are not in the store as they are here.
    unsaved: BTreeSet<Vec<u8>>,
    /// Parts of updates that could not be used.
    refused: u64,
}

/// A set with all its members.
#[derive(Debug, Default)]
struct Members {
    /// Everything but the members.
    said: SetChange,
    uids: BTreeSet<String>,
}

impl Members {
    fn whole(&self) -> SetChange {
        let added = self.uids.iter().cloned().collect();
        SetChange { whole: true, added, removed: Vec::new(), ..self.said.clone() }
    }
}

impl Kept {
    /// The last update's, for the hello.
    pub(crate) fn revision(&self) -> (String, u64) {
        (self.head.epoch.clone(), self.head.revision)
    }

    /// Parts of updates that could not be used.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Internal networks that were said.
    pub(crate) fn internal(&self) -> BTreeSet<IpNet> {
        let read = |text: &String| text.parse::<IpNet>().ok().map(|net| net.trunc());
        self.head.internal.iter().filter_map(read).collect()
    }

    /// Takes in an update, the learner too. Of workloads that are gone it needs to know when.
    pub(crate) fn take(&mut self, update: Update, learner: &mut Learner, now: u64) {
        if update.whole {
            self.forget(learner);
        }
        for said in update.workloads {
            self.workload(said, learner);
        }
        for said in update.sets {
            self.set(&said, learner);
        }
        for said in update.rules {
            self.rule(said, learner);
        }
        for said in update.modes {
            self.mode(said, learner);
        }
        // What they leave may be needed for what comes.
        for name in update.services_gone {
            self.services.remove(&name);
            self.note(b'v', name.as_bytes());
            self.tell(learner, ClusterChange::ServiceGone(name.into()));
        }
        for said in update.services {
            self.service(said, learner);
        }
        for id in update.rules_gone {
            self.rules.remove(&id);
            self.note(b'r', &id.to_be_bytes());
            self.tell(learner, ClusterChange::RuleGone(RuleId(id)));
        }
        for name in update.sets_gone {
            self.sets.remove(&name);
            self.note(b's', name.as_bytes());
            self.tell(learner, ClusterChange::SetGone(Group::named(&name)));
        }
        for uid in update.workloads_gone {
            self.workloads.remove(&uid);
            self.note(b'w', uid.as_bytes());
            self.tell(learner, ClusterChange::RemoteGone { uid: uid.into(), now });
        }
        if update.whole || !update.internal.is_empty() {
            self.head.internal = update.internal;
            self.head.internal.truncate(MAX_INTERNAL);
        }
        (self.head.epoch, self.head.revision) = (update.epoch, update.revision);
        self.unsaved.insert(HEAD.to_vec());
    }

    /// Rows that changed since the last call.
    pub(crate) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        for key in std::mem::take(&mut self.unsaved) {
            let value = self.row(&key);
            changes.push(Change { table: Table::Cluster, key, value });
        }
    }

    /// Takes back a row; `false` if it makes no sense. The learner is told of workloads and sets at once, in any
    /// order.
    pub(crate) fn restore(&mut self, key: &[u8], value: &[u8], learner: &mut Learner) -> bool {
        let known = match key.first() {
            _ if key == HEAD => Head::decode(value).map(|head| self.head = head).is_ok(),
            Some(b'w') => Workload::decode(value).is_ok_and(|said| self.workload(said, learner)),
            Some(b's') => SetChange::decode(value).is_ok_and(|said| self.set(&said, learner)),
            Some(b'r') => Rule::decode(value).is_ok_and(|said| self.rule(said, learner)),
            Some(b'v') => Service::decode(value).is_ok_and(|said| self.service(said, learner)),
            Some(b'm') => WireMode::decode(value).is_ok_and(|said| self.mode(said, learner)),
            _ => false,
        };
        self.unsaved.clear();
        known
    }

    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        if key == HEAD {
            return Some(self.head.encode_to_vec());
        }
        let (kind, name) = key.split_first()?;
        let text = || std::str::from_utf8(name).ok();
        match kind {
            b'w' => self.workloads.get(text()?).map(Message::encode_to_vec),
            b's' => self
                .sets
                .get(text()?)
                .map(|set| set.whole().encode_to_vec()),
            b'v' => self.services.get(text()?).map(Message::encode_to_vec),
            b'm' => self.modes.get(text()?).map(Message::encode_to_vec),
            _ => self
                .rules
                .get(&u32::from_be_bytes(name.try_into().ok()?))
                .map(Message::encode_to_vec),
        }
    }

    fn forget(&mut self, learner: &mut Learner) {
        let texts = |kind: u8, names: Vec<&String>| -> Vec<Vec<u8>> {
            let key = |name: &String| [&[kind], name.as_bytes()].concat();
            names.into_iter().map(key).collect()
        };
        let mut gone = texts(b'w', self.workloads.keys().collect());
        gone.extend(texts(b's', self.sets.keys().collect()));
        gone.extend(texts(b'm', self.modes.keys().collect()));
        gone.extend(texts(b'v', self.services.keys().collect()));
        gone.extend(
            self.rules
                .keys()
                .map(|id| [&[b'r'][..], &id.to_be_bytes()].concat()),
        );
        self.unsaved.extend(gone);
        (self.workloads, self.sets) = Default::default();
        (self.rules, self.modes, self.services) = Default::default();
        self.tell(learner, ClusterChange::Reset);
    }

    fn workload(&mut self, said: Workload, learner: &mut Learner) -> bool {
        let read = read::workload(&said).map(ClusterChange::Remote);
        let is_taken = self.try_tell(learner, read);
        if is_taken {
            self.note(b'w', said.uid.as_bytes());
            self.workloads.insert(said.uid.clone(), said);
        }
        is_taken
    }

    fn set(&mut self, said: &SetChange, learner: &mut Learner) -> bool {
        let read = read::set(said).map(ClusterChange::Set);
        if !self.try_tell(learner, read) {
            return false;
        }
        self.note(b's', said.name.as_bytes());
        let known = self.sets.entry(said.name.clone()).or_default();
        if said.whole {
            known.uids.clear();
            known.said = SetChange { added: Vec::new(), removed: Vec::new(), ..said.clone() };
        } else {
            known.said.name.clone_from(&said.name);
        }
        known.uids.extend(said.added.iter().cloned());
        for uid in &said.removed {
            known.uids.remove(uid);
        }
        true
    }

    fn rule(&mut self, said: Rule, learner: &mut Learner) -> bool {
        let read = read::rule(&said).map(ClusterChange::Rule);
        let is_taken = self.try_tell(learner, read);
        if is_taken {
            self.note(b'r', &said.id.to_be_bytes());
            self.rules.insert(said.id, said);
        }
        is_taken
    }

    fn service(&mut self, said: Service, learner: &mut Learner) -> bool {
        let read = read::service(&said).map(ClusterChange::Service);
        let is_taken = self.try_tell(learner, read);
        if is_taken {
            let name = read::service_name(&said);
            self.note(b'v', name.as_bytes());
            self.services.insert(name, said);
        }
        is_taken
    }

    fn mode(&mut self, said: WireMode, learner: &mut Learner) -> bool {
        let mode = if said.mode.is_empty() { Ok(None) } else { said.mode.parse().map(Some) };
        let uid = Arc::from(said.uid.as_str());
        let read = mode.ok().map(|mode| ClusterChange::Mode(uid, mode));
        if !self.try_tell(learner, read) {
            return false;
        }
        self.note(b'm', said.uid.as_bytes());
        if said.mode.is_empty() {
            self.modes.remove(&said.uid);
        } else {
            self.modes.insert(said.uid.clone(), said);
        }
        true
    }

    fn tell(&mut self, learner: &mut Learner, change: ClusterChange) {
        self.try_tell(learner, Some(change));
    }

    /// Tells the learner; what it does not take, or cannot be read, is counted.
    fn try_tell(&mut self, learner: &mut Learner, change: Option<ClusterChange>) -> bool {
        let is_taken = change.is_some_and(|change| learner.cluster(change).is_ok());
        self.refused += u64::from(!is_taken);
        is_taken
    }

    fn note(&mut self, kind: u8, name: &[u8]) {
        self.unsaved.insert([&[kind], name].concat());
    }
}

#[cfg(test)]
mod tests;
