//! What clients' proxies say is spoken: it counts where the server's proxy saw no application.

use std::{collections::BTreeMap, sync::Arc};

use outrider_model::{AppId, IpProto, Mode, PolicyAction};

use crate::{ConversationKey, Directory, Endpoint, Learner, MAX_WORKLOADS, Row};

/// Servers' ports of which one client's word is kept; the one heard longest ago makes room.
pub const MAX_WORDS: usize = 64;

/// A server's port, by the server's uid.
type Port = (Arc<str>, IpProto, u16);

/// By client: which application it spoke to a server's port, and when it said so last. Not stored:
/// the next row says it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(BTreeMap<Arc<str>, BTreeMap<Port, (AppId, u64)>>);

impl Words {
    /// Notes what a client's proxy identified; says whether that is news.
    fn hear(&mut self, key: &ConversationKey, at: u64, directory: &Directory) -> bool {
        let Some((client, port)) = place(key).filter(|_| is_identified(key.app)) else {
            return false;
        };
        if self.0.len() >= MAX_WORKLOADS && !self.0.contains_key(client) {
            self.0.retain(|uid, _| directory.entry(uid).is_some());
        }
        let known = self.0.entry(Arc::clone(client)).or_default();
        if known.len() >= MAX_WORDS && !known.contains_key(&port) {
            let oldest = known.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(port, _)| port.clone()) {
                known.remove(&oldest);
            }
        }
        known
            .insert(port, (key.app, at))
            .is_none_or(|(app, _)| app != key.app)
    }

    /// What the client of flows whose application the server's proxy did not see says it is.
    pub(crate) fn app(&self, key: &ConversationKey) -> Option<AppId> {
        let (client, port) = place(key).filter(|_| key.app == AppId::UNKNOWN)?;
        self.0.get(client)?.get(&port).map(|(app, _)| *app)
    }
}

/// Both ends, if a word between them can count: a pod's own report about another pod's port.
fn place(key: &ConversationKey) -> Option<(&Arc<str>, Port)> {
    let (Endpoint::Workload(client), Endpoint::Workload(server)) = (&key.client, &key.server)
    else {
        return None;
    };
    Some((client, (Arc::clone(server), key.proto, key.port)))
}

fn is_identified(app: AppId) -> bool {
    !matches!(app, AppId::UNKNOWN | AppId::NOT_CHECKED | AppId::UNIDENTIFIED)
}

impl Learner {
    /// Takes in what the client's proxy identified. What the server's counted so far without an
    /// application gets its name, and so does what is learned from it; says whether policy changed.
    pub(crate) fn hear(&mut self, key: &ConversationKey, row: &Row) -> bool {
        if !self.words.hear(key, row.last_seen, &self.directory) {
            return false;
        }
        let nameless = ConversationKey { app: AppId::UNKNOWN, ..key.clone() };
        let renamed = self.conversations.rename(&nameless, key, &mut self.totals);
        let Some((action, reporter)) = renamed else { return false };
        let server = self.directory.group(&key.server);
        let learns = server.is_some_and(|group| self.mode(&group) == Mode::Discover);
        if !learns || action == PolicyAction::Open {
            return false;
        }
        let keys = self.learn_key(&nameless).zip(self.learn_key(key));
        keys.is_some_and(|(bare, named)| {
            let whose = (&named, &reporter);
            self.rules
                .rename(&bare, whose, &self.settings, &mut self.totals)
        })
    }
}

#[cfg(test)]
mod tests;
