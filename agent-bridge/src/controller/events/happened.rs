//! What bridges told that happened at a moment, until it is said.

use std::{collections::VecDeque, sync::Arc};

use outrider_api::cluster::{Conversation, Side};
use outrider_model::{AppId, IpProto};

use super::Due;
use crate::controller::published::Published;

/// What waits to be said; more is not said.
const MAX_WAITING: usize = 256;
/// Violations of one batch that are looked at.
pub(in crate::controller) const MAX_OF_BATCH: usize = 8;
/// Violations of one workload that are told apart: more peers than that share what is said.
const MAX_PEERS: u64 = 8;

/// One such thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::controller) enum Happened {
    /// A workload's proxy confirmed another mode than before.
    Mode {
        /// The pod.
        uid: Arc<str>,
        /// What it confirmed before, and now.
        modes: [String; 2],
    },
    /// Policy does not allow what was seen.
    Violation(Violation),
}

/// Connections that policy does not allow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::controller) struct Violation {
    /// The group that the proxy which says so is of, and the one at the other end.
    pub(in crate::controller) groups: [String; 2],
    /// It is the server.
    pub(in crate::controller) is_server: bool,
    /// Protocol, port and application, for people.
    pub(in crate::controller) service: String,
    /// How many.
    pub(in crate::controller) count: u64,
    /// The mode of the workload, if it is known.
    pub(in crate::controller) mode: String,
}

/// What waits to be said.
#[derive(Debug, Default)]
pub(in crate::controller) struct Queue(VecDeque<Happened>);

impl Queue {
    /// Hands something in; `false` if there is no room.
    #[must_use]
    pub(in crate::controller) fn put(&mut self, happened: Happened) -> bool {
        let has_room = self.0.len() < MAX_WAITING;
        if has_room {
            self.0.push_back(happened);
        }
        has_room
    }

    /// Everything, in order.
    pub(super) fn take(&mut self) -> Vec<Happened> {
        self.0.drain(..).collect()
    }
}

impl Violation {
    /// Of a conversation.
    pub(in crate::controller) fn of(said: &Conversation, mode: String) -> Self {
        let is_server = said.side() == Side::Server;
        let mut groups = [said.to.clone(), said.from.clone()];
        if !is_server {
            groups.reverse();
        }
        let proto =
            u8::try_from(said.proto).map_or_else(|_| "?".into(), |it| IpProto(it).to_string());
        let app = Some(AppId(said.app)).filter(|app| *app != AppId::UNIDENTIFIED);
        let app = app.and_then(AppId::name);
        let app = app.map_or_else(String::new, |name| format!(" ({name})"));
        let service = format!("{proto}/{}{app}", said.port);
        Self { groups, is_server, service, count: said.violations, mode }
    }
}

impl Happened {
    /// As it is said of the workload; nothing, if there is none any more.
    pub(super) fn due(&self, now: &Published) -> Option<Due> {
        match self {
            Self::Mode { uid, modes: [before, after] } => {
                let pod = now.pods.get(uid)?;
                let message = format!("the mode was {before} and is {after}");
                let mut due = Due::new(pod, "ModeChanged", message.clone(), message);
                due.saying.is_normal = true;
                Some(due)
            }
            Self::Violation(seen) => {
                let [own, peer] = &seen.groups;
                let pod = now.in_group(own).next()?;
                let (count, service) = (seen.count, &seen.service);
                let way = if seen.is_server { "from" } else { "to" };
                let done = match seen.mode.as_str() {
                    "protect" => "stopped",
                    _ => "not stopped: it is only seen in this mode",
                };
                let message = format!(
                    "policy does not allow {count} connections {way} {peer}, {service}: {done} \
                     (more of the kind are not told for {} minutes)",
                    super::AGAIN.as_secs() / 60
                );
                let peer = (way, place(peer));
                Some(Due::new(pod, "PolicyViolated", format!("{peer:?}"), message))
            }
        }
    }
}

/// One of a few places, so that whoever has many names fills no more than those.
fn place(peer: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    peer.hash(&mut hasher);
    hasher.finish() % MAX_PEERS
}
