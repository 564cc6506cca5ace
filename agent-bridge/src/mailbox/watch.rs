//! Which pods this node has: those that the API server names, and the workload files beside the mailbox
//! directories.
//!
//! The root is polled. A poll of a few hundred names on a tmpfs costs less than keeping an inotify
//! queue honest through overflows and renames, and a pod's start is not awaited by anyone: until
//! the bridge has seen it, its proxy keeps what it has to say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{File, OpenOptions},
    io::Read,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::OFlag;
use outrider_learn::Group;
use outrider_model::MacAddr;
use serde::Deserialize;

use crate::{
    counts::Unserved,
    pods::{Known, Origin, tend::Tender},
    stamp::Stamp,
};

/// Time between two looks at the root.
pub const POLL: Duration = Duration::from_millis(500);
/// Most mailboxes served; a node has a few hundred pods at most.
pub const MAX_MAILBOXES: usize = 1024;
/// Directory entries looked at per poll.
const MAX_ENTRIES: usize = 4 * MAX_MAILBOXES;
/// Largest workload file.
const MAX_FILE: u64 = 64 * 1024;
/// Longest uid, name, namespace or service.
const MAX_NAME: usize = 253;
/// Most addresses of one workload.
pub const MAX_ADDRESSES: usize = 16;

/// A pod, as the workload file beside its mailbox describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Name of the mailbox.
    pub uid: String,
    /// `<namespace>/<name>`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it is a replica of.
    pub service: String,
    /// The pod's addresses, canonical.
    pub addresses: Vec<IpAddr>,
    /// Its MAC, its name on the ctrl wire.
    pub mac: MacAddr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// The group of its replicas.
    #[must_use]
    pub fn group(&self) -> Group {
        Group::of_service(&self.service, &self.namespace)
    }
}

/// What a poll found to be different.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A workload with a mailbox, new or changed.
    Present(Workload),
    /// Its file or its mailbox is gone.
    Gone(String),
}

/// A mailbox, or what might be one, that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The closed label.
    pub why: Unserved,
    /// Which one and why, for people.
    pub text: String,
}

/// Remembers what the last poll saw.
#[derive(Debug)]
pub struct Watcher {
    root: PathBuf,
    seen: HashMap<String, Seen>,
    present: BTreeMap<String, Workload>,
    tender: Tender,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    outcome: Result<Workload, String>,
}

/// One poll's outcome.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Poll {
    /// What changed since the last one.
    pub changes: Vec<Change>,
    /// What cannot be used, and why, in order.
    pub refused: Vec<Refused>,
}

impl Watcher {
    /// Watches `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let tender = Tender::new(&root);
        Self { root, seen: HashMap::new(), present: BTreeMap::new(), tender }
    }

    /// Looks once at what files say.
    pub fn poll(&mut self) -> Poll {
        self.poll_with(&Known::default())
    }

    /// Looks once; of what both the API server and a file describe, the API server's word counts.
    pub(crate) fn poll_with(&mut self, known: &Known) -> Poll {
        let mut poll = Poll::default();
        let mut found = BTreeMap::new();
        let mut owners = HashMap::new();
        let refused = self.tender.tend(known);
        for uid in self.all(known, &refused, &mut poll.refused) {
            let workload = match known.pods.get(&uid) {
                Some(pod) => self.of_pod(&uid, pod.workload.as_ref()),
                None => self.workload(&uid),
            };
            match workload {
                Ok(workload) => match owners.insert(workload.mac, uid.clone()) {
                    None => drop(found.insert(uid, workload)),
                    Some(first) => {
                        let text = format!("{uid}: has the MAC of {first}");
                        poll.refused.push(Refused { why: Unserved::Mac, text });
                        owners.insert(workload.mac, first);
                    }
                },
                Err((why, reason)) => {
                    poll.refused
                        .push(Refused { why, text: format!("{uid}: {reason}") });
                }
            }
        }
        self.seen
            .retain(|uid, _| found.contains_key(uid) || self.root.join(file(uid)).exists());
        for (uid, workload) in &found {
            if self.present.get(uid) != Some(workload) {
                poll.changes.push(Change::Present(workload.clone()));
            }
        }
        let gone = self.present.keys().filter(|uid| !found.contains_key(*uid));
        poll.changes.extend(gone.cloned().map(Change::Gone));
        self.present = found;
        poll.refused.extend(refused.into_values());
        poll
    }

    /// Everything that may have a mailbox, the API server's pods first.
    fn all(
        &self,
        known: &Known,
        unusable: &BTreeMap<String, Refused>,
        refused: &mut Vec<Refused>,
    ) -> Vec<String> {
        let has_address = |uid: &&String| known.pods[*uid].workload.is_some();
        let pods = known.mailboxes().map(|(uid, _)| uid);
        let mut all: Vec<_> = pods
            .filter(|uid| !unusable.contains_key(*uid))
            .filter(has_address)
            .cloned()
            .collect();
        let files = self.uids(refused, known.origin == Origin::Nobody);
        all.extend(
            files
                .into_iter()
                .filter(|uid| !known.pods.contains_key(uid)),
        );
        if all.len() > MAX_MAILBOXES {
            all.truncate(MAX_MAILBOXES);
            let text = format!("more than {MAX_MAILBOXES} workloads; the rest wait");
            refused.push(Refused { why: Unserved::TooMany, text });
        }
        all
    }

    /// Stems of the workload files, in order.
    fn uids(&self, refused: &mut Vec<Refused>, must_be_there: bool) -> BTreeSet<String> {
        let mut refuse = |why, text| refused.push(Refused { why, text });
        let Ok(entries) = std::fs::read_dir(&self.root) else {
            if must_be_there {
                let text = format!("{}: cannot be read", self.root.display());
                refuse(Unserved::Root, text);
            }
            return BTreeSet::new();
        };
        let mut uids = BTreeSet::new();
        for entry in entries.take(MAX_ENTRIES).flatten() {
            let name = entry.file_name();
            let Some(uid) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            if uids.len() == MAX_MAILBOXES {
                let text = format!("more than {MAX_MAILBOXES} workloads; the rest wait");
                refuse(Unserved::TooMany, text);
                break;
            }
            if is_uid(uid) {
                uids.insert(uid.to_owned());
            } else {
                refuse(Unserved::Name, format!("{uid:?}: not a name for a mailbox"));
            }
        }
        uids
    }

    fn workload(&mut self, uid: &str) -> Result<Workload, (Unserved, String)> {
        self.has_directory(uid)?;
        self.described(uid)
            .map_err(|reason| (Unserved::WorkloadFile, reason))
    }

    fn of_pod(&self, uid: &str, pod: Option<&Workload>) -> Result<Workload, (Unserved, String)> {
        self.has_directory(uid)?;
        pod.cloned()
            .ok_or_else(|| (Unserved::WorkloadFile, "has no address yet".into()))
    }

    fn has_directory(&self, uid: &str) -> Result<(), (Unserved, String)> {
        let mailbox = self.root.join(uid).symlink_metadata();
        if mailbox.is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        Err((Unserved::NoDirectory, "has no mailbox directory".into()))
    }

    fn described(&mut self, uid: &str) -> Result<Workload, String> {
        let (mut file, stamp) = open(&self.root.join(file(uid)))?;
        if let Some(seen) = self.seen.get(uid)
            && seen.stamp == stamp
        {
            return seen.outcome.clone();
        }
        let outcome = read(&mut file).and_then(|text| parse(uid, &text));
        self.seen
            .insert(uid.to_owned(), Seen { stamp, outcome: outcome.clone() });
        outcome
    }
}

fn file(uid: &str) -> String {
    format!("{uid}.json")
}

fn open(path: &Path) -> Result<(File, Stamp), String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = file.map_err(|error| format!("cannot be opened: {error}"))?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("is not a plain file".into());
    }
    Ok((file, Stamp::of(&found)))
}

fn read(file: &mut File) -> Result<String, String> {
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// The file's members; unknown ones are for others.
#[derive(Deserialize)]
struct Described {
    uid: String,
    name: String,
    namespace: String,
    service: String,
    addresses: Vec<IpAddr>,
    mac: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads a workload file.
pub(crate) fn parse(uid: &str, text: &str) -> Result<Workload, String> {
    let found: Described = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if found.uid != uid {
        return Err(format!("says it is {:?}", found.uid));
    }
    for (what, name) in
        [("name", &found.name), ("namespace", &found.namespace), ("service", &found.service)]
    {
        if !is_name(name) {
            return Err(format!("{what} {name:?} is not a Kubernetes name"));
        }
    }
    if found.addresses.is_empty() || found.addresses.len() > MAX_ADDRESSES {
        return Err(format!("needs 1 to {MAX_ADDRESSES} addresses"));
    }
    Ok(Workload {
        uid: found.uid,
        name: format!("{}/{}", found.namespace, found.name),
        namespace: found.namespace,
        service: found.service,
        addresses: found.addresses.iter().map(IpAddr::to_canonical).collect(),
        mac: found.mac.parse().map_err(|error| format!("mac: {error}"))?,
        labels: found.labels,
    })
}

/// Whether a text may name a mailbox.
pub(crate) fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_name_byte) && text != ".."
}

/// Whether a text may be a name of Kubernetes.
pub(crate) fn is_name(text: &str) -> bool {
    is_uid(text) && !text.starts_with(['.', '-'])
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// A workload as its file has it.
pub(crate) fn describe(workload: &Workload) -> Vec<u8> {
    let Workload { uid, name, namespace, service, addresses, mac, labels } = workload;
    let name = name.split_once('/').map_or(name.as_str(), |(_, name)| name);
    let mac = mac.to_string();
    serde_json::json!({
        "uid": uid, "name": name, "namespace": namespace, "service": service,
        "addresses": addresses, "mac": mac, "labels": labels,
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests;
