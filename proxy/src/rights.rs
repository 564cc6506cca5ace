//! What the process may do with the rights it was given, said at start and in `/status`.

use caps::{CapSet, Capability};
use serde::Serialize;
use tracing::warn;

/// Effective rights of this process.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Rights {
    /// Effective user id.
    pub uid: u32,
    /// Capabilities that matter to a proxy and are effective.
    pub capabilities: Vec<&'static str>,
    /// What works.
    pub can: Vec<&'static str>,
    /// What does not, and what it would take.
    pub cannot: Vec<&'static str>,
    /// Most open files.
    pub open_files: u64,
}

impl Rights {
    /// Reads the process's rights, raising the limit of open files to what is allowed.
    #[must_use]
    pub(crate) fn take() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut rights = Self::from_status(&status);
        rights.open_files = raise_open_files();
        rights
    }

    /// Whether packet sockets, foreign addresses and marks are ours to use.
    #[must_use]
    pub(crate) fn raw_sockets(&self) -> bool {
        !self.capabilities.is_empty()
    }

    /// Whether packet sockets that see everything are ours to use.
    #[must_use]
    pub(crate) fn tap(&self) -> bool {
        self.capabilities.contains(&NET_RAW)
    }

    /// Whether packet queues are ours to read.
    #[must_use]
    pub(crate) fn queue(&self) -> bool {
        self.capabilities.contains(&NET_ADMIN)
    }

    /// Reads the text of `/proc/self/status`.
    fn from_status(status: &str) -> Self {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
        let effective = field("CapEff:")
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or_default();
        let has = |bit: u32| effective & (1_u64 << bit) != 0;
        let (admin, raw) = (has(CAP_NET_ADMIN), has(CAP_NET_RAW));
        let mut rights = Self { uid: uid.unwrap_or_default(), ..Self::default() };
        rights.capabilities.extend(admin.then_some(NET_ADMIN));
        rights.capabilities.extend(raw.then_some(NET_RAW));
        rights
            .can
            .push("relay redirected TCP, inspect it and enforce policy on it");
        rights.say(admin || raw, "take TPROXY connections", "TPROXY: needs NET_RAW");
        rights.say(admin || raw, "mark own packets", "secret mark: needs NET_RAW");
        rights.say(raw, "open packet sockets", "packet tap: needs NET_RAW");
        rights.say(admin, "bind NFQUEUE", "enforcement of what is not TCP: needs NET_ADMIN");
        rights
    }

    fn say(&mut self, able: bool, can: &'static str, cannot: &'static str) {
        if able { self.can.push(can) } else { self.cannot.push(cannot) }
    }
}

/// Makes this thread's permitted capabilities effective, and so those of threads that it starts later. A file's
/// capabilities come permitted only: with the effective bit a container that grants none could not run the file.
pub(crate) fn raise() {
    for capability in [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW] {
        if matches!(caps::has_cap(None, CapSet::Permitted, capability), Ok(true))
            && let Err(error) = caps::raise(None, CapSet::Effective, capability)
        {
            warn!(%capability, %error, "permitted, and not to be had");
        }
    }
}

/// Every flow costs two descriptors, so the soft limit goes up to the hard one.
fn raise_open_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_kept) => soft,
    }
}

const NET_ADMIN: &str = "NET_ADMIN";
const NET_RAW: &str = "NET_RAW";
/// Numbers of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_an_unprivileged_proxy_cannot_do() {
        let rights =
            Rights::from_status("Uid:\t1771\t1771\t1771\t1771\nCapEff:\t0000000000000000\n");
        assert_eq!(rights.uid, 1771);
        assert!(rights.capabilities.is_empty());
        assert_eq!((rights.can.len(), rights.cannot.len()), (1, 4));
    }

    #[test]
    fn says_what_each_capability_adds() {
        let raw = Rights::from_status("Uid:\t1771 1771\nCapEff:\t0000000000002000\n");
        assert_eq!(raw.capabilities, ["NET_RAW"]);
        assert_eq!((raw.can.len(), raw.cannot.len()), (4, 1));
        let both = Rights::from_status("CapEff:\t0000000000003000\n");
        assert!(both.cannot.is_empty());
    }

    #[test]
    fn survives_a_status_it_cannot_read() {
        assert_eq!(Rights::from_status("nonsense").capabilities.len(), 0);
    }
}
