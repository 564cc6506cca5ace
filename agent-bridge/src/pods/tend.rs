//! Looks after the mailbox directories as pods come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    Known, Origin,
    ground::{Ground, GroundError},
};
use crate::{counts::Unserved, mailbox::watch::Refused};

/// Looks at the mailboxes between two looks for directories without a pod. One has to be without at two of them:
/// the kubelet may make a directory before the API server has told us of the pod.
const SWEEP_EVERY: u32 = 60;
/// Directories of pods that are gone which are kept in mind.
const MAX_LEFT: usize = 256;

/// Remembers what was without a pod.
#[derive(Debug)]
pub(crate) struct Tender {
    root: PathBuf,
    ground: Ground,
    looks: u32,
    /// Without a pod at the last sweep.
    without: BTreeSet<String>,
    /// Not to be removed, and why.
    left: BTreeMap<String, String>,
}

impl Tender {
    /// Tends what is below `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            ground: Ground::new(root.to_owned()),
            looks: 0,
            without: BTreeSet::new(),
            left: BTreeMap::new(),
        }
    }

    /// Gives every pod its directory, and now and then takes away those of pods that are gone. Only what the API
    /// server itself says counts: of what the store remembers nothing is made and nothing removed. Says what
    /// cannot be used, by uid.
    pub(crate) fn tend(&mut self, known: &Known) -> BTreeMap<String, Refused> {
        let mut refused = BTreeMap::new();
        if known.origin != Origin::Server {
            return refused;
        }
        let mut refuse = |uid: &str, why, text: String| {
            let text = format!("{uid}: {text}");
            refused.insert(uid.to_owned(), Refused { why, text });
        };
        if let Err(error) = self.ground.lay() {
            tracing::debug!(%error, "the root of the mailboxes cannot be made");
        }
        for (uid, _) in known.mailboxes() {
            if let Err(error) = self.ground.prepare(uid) {
                refuse(uid, Unserved::Owner, format!("mailbox directory {error}"));
            }
        }
        if self.looks.is_multiple_of(SWEEP_EVERY) {
            self.sweep(known);
        }
        self.looks = self.looks.wrapping_add(1);
        for (uid, text) in &self.left {
            refuse(
                uid,
                Unserved::LeftOver,
                format!("its pod is gone, its mailbox directory {text}"),
            );
        }
        refused
    }

    fn sweep(&mut self, known: &Known) {
        let described = |uid: &str| self.root.join(format!("{uid}.json")).exists();
        let mut found = self.ground.uids();
        found.retain(|uid| !known.pods.contains_key(uid) && !described(uid));
        self.left.clear();
        for uid in found.intersection(&self.without) {
            if let Some(text) = remove(&self.ground, uid)
                && self.left.len() < MAX_LEFT
            {
                self.left.insert(uid.clone(), text);
            }
        }
        self.without = found;
    }
}

/// Removes a directory, or says why it stays.
fn remove(ground: &Ground, uid: &str) -> Option<String> {
    match ground.remove(uid) {
        Ok(()) => tracing::info!(uid, "mailbox directory of a pod that is gone removed"),
        Err(GroundError::Alive) => {
            tracing::warn!(
                uid,
                "no pod of this node, but a proxy listens in its mailbox: it stays"
            );
        }
        Err(error) => return Some(error.to_string()),
    }
    None
}

#[cfg(test)]
mod tests;
