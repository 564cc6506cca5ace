//! Names that workloads were given addresses for, as their proxies saw it on the wire.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Addresses with a name that one workload may have; the one that was asked for longest ago makes
/// room.
pub const MAX_NAMED: usize = 1_024;

/// Addresses with a name that all workloads have; those of the workload that has most, asked for
/// longest ago, make room.
pub const MAX_ALL_NAMED: usize = 32_768;

/// They go in lots of this part of what that workload has.
const LOT: usize = 16;

/// How long a name holds after it was reported last, in seconds. A proxy takes back what expires;
/// this is for those that could not.
pub const NAME_LIFE: u64 = 24 * 3_600;

/// How long after its end a name is remembered, in seconds: reports of flows are still under way.
const REMEMBERED: u64 = 300;

/// The longest name of the domain name system, as text.
const MAX_NAME: usize = 253;

/// Names by workload and address.
#[derive(Clone, Debug, Default)]
pub struct Names {
    of: BTreeMap<Arc<str>, BTreeMap<IpAddr, Given>>,
    count: usize,
    evicted: u64,
}

#[derive(Clone, Debug)]
struct Given {
    name: Arc<str>,
    /// When it was reported last.
    at: u64,
    /// Flows that begin later do not go by it.
    until: u64,
}

impl Names {
    /// A workload was given an address for a name; says whether that can be one. A pattern (`*.…`)
    /// stands back behind a name that is known.
    pub fn add(&mut self, uid: &str, address: IpAddr, name: &str, now: u64) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let pattern = name.strip_prefix("*.");
        let text = pattern.unwrap_or(&name);
        if text.is_empty() || name.len() > MAX_NAME || !text.bytes().all(is_name) {
            return false;
        }
        let address = address.to_canonical();
        if pattern.is_some()
            && self
                .of(uid, address, now)
                .is_some_and(|known| !known.starts_with('*'))
        {
            return true;
        }
        self.make_room(uid, address, now);
        let given = Given { name: name.into(), at: now, until: now.saturating_add(NAME_LIFE) };
        let before = self
            .of
            .entry(uid.into())
            .or_default()
            .insert(address, given);
        self.count += usize::from(before.is_none());
        true
    }

    /// For one more of a workload's addresses.
    fn make_room(&mut self, uid: &str, address: IpAddr, now: u64) {
        if let Some(known) = self.of.get_mut(uid) {
            let before = known.len();
            known.retain(|_, given| now < given.until.saturating_add(REMEMBERED));
            self.count = self
                .count
                .saturating_sub(before.saturating_sub(known.len()));
            if known.contains_key(&address) {
                return;
            }
            if known.len() >= MAX_NAMED {
                self.drop_oldest(uid, 1);
            }
        }
        if self.count >= MAX_ALL_NAMED {
            let most = self.of.iter().max_by_key(|(_, known)| known.len());
            let most = most.map(|(uid, known)| (Arc::clone(uid), known.len()));
            if let Some((uid, count)) = most {
                self.drop_oldest(&uid, (count / LOT).max(1));
            }
        }
    }

    fn drop_oldest(&mut self, uid: &str, lot: usize) {
        let Some(known) = self.of.get_mut(uid) else { return };
        let mut ages: Vec<_> = known.iter().map(|(at, given)| (given.at, *at)).collect();
        ages.sort_unstable();
        for (_, address) in ages.into_iter().take(lot) {
            known.remove(&address);
            self.count = self.count.saturating_sub(1);
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    /// A workload's address lost its name: flows that began before still go by it.
    pub fn end(&mut self, uid: &str, address: IpAddr, now: u64) {
        let known = self.of.get_mut(uid);
        if let Some(given) = known.and_then(|known| known.get_mut(&address.to_canonical())) {
            given.until = given.until.min(now);
        }
    }

    /// The workload is gone.
    pub(crate) fn forget(&mut self, uid: &str) {
        let gone = self.of.remove(uid).unwrap_or_default();
        self.count = self.count.saturating_sub(gone.len());
    }

    /// The name that a workload was given an address for, of a flow that began then.
    #[must_use]
    pub fn of(&self, uid: &str, address: IpAddr, began: u64) -> Option<Arc<str>> {
        let given = self.of.get(uid)?.get(&address)?;
        (began <= given.until).then(|| Arc::clone(&given.name))
    }

    /// Names that made room for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: usize) -> IpAddr {
        IpAddr::from((0xc000_0200 + u32::try_from(at).unwrap()).to_be_bytes())
    }

    #[test]
    fn names_hold_until_taken_back_or_old() {
        let mut names = Names::default();
        assert!(names.add("web", address(1), "API.example.", 100));
        let of = |names: &Names, now| {
            names
                .of("web", address(1), now)
                .map(|name| name.to_string())
        };
        assert_eq!(of(&names, 100).as_deref(), Some("api.example"));
        assert_eq!(of(&names, 101 + NAME_LIFE), None);
        names.end("web", address(1), 200);
        assert_eq!(of(&names, 200).as_deref(), Some("api.example"), "flows that began before");
        assert_eq!(of(&names, 201), None);
        names.add("web", address(2), "other.example", 200 + REMEMBERED);
        assert_eq!(of(&names, 200), None, "it is forgotten in time");
    }

    #[test]
    fn a_pattern_stands_back_behind_a_name() {
        let mut names = Names::default();
        let of = |names: &Names| names.of("web", address(1), 5).map(|name| name.to_string());
        assert!(names.add("web", address(1), "*.example", 1));
        assert_eq!(of(&names).as_deref(), Some("*.example"));
        assert!(names.add("web", address(1), "api.example", 2));
        assert!(names.add("web", address(1), "*.example", 3));
        assert_eq!(of(&names).as_deref(), Some("api.example"));
    }

    #[test]
    fn what_is_no_name_is_not_kept() {
        let mut names = Names::default();
        for text in
            ["", ".", "*.", "a.*.b", "a b", "a\u{1b}[2J", "\u{e4}.example", &"a".repeat(254)]
        {
            assert!(!names.add("web", address(1), text, 1), "{text}");
        }
    }

    #[test]
    fn the_oldest_makes_room_in_its_own_workload() {
        let mut names = Names::default();
        names.add("quiet", address(0), "quiet.example", 0);
        for at in 0..=MAX_NAMED {
            names.add("noisy", address(at), "n.example", u64::try_from(at).unwrap());
        }
        assert_eq!((names.of["noisy"].len(), names.evicted()), (MAX_NAMED, 1));
        assert!(names.of("noisy", address(0), 0).is_none());
        assert!(names.of("quiet", address(0), 0).is_some());
        assert_eq!(names.count, MAX_NAMED + 1);
        names.forget("noisy");
        assert_eq!(names.count, 1);
        assert!(names.of("noisy", address(5), 0).is_none());
    }

    #[test]
    fn all_have_a_bound_and_who_has_most_makes_room() {
        let mut names = Names::default();
        for at in 0..10 {
            names.add("quiet", address(at), "quiet.example", 0);
        }
        for pod in 0..64 {
            for at in 0..MAX_NAMED {
                names.add(&format!("noisy-{pod}"), address(at), "n.example", 5);
            }
        }
        assert!(names.count <= MAX_ALL_NAMED && names.count > MAX_ALL_NAMED - MAX_NAMED);
        let all: usize = names.of.values().map(BTreeMap::len).sum();
        assert_eq!(names.count, all);
        assert_eq!(names.evicted(), (64 * MAX_NAMED + 10 - all) as u64);
        assert_eq!(names.of["quiet"].len(), 10);
        assert!(names.of.values().all(|known| known.len() >= 10), "shares are alike");
    }
}
