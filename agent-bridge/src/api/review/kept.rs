//! What the API server said lately.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Verdict;
use crate::api::tokens::Role;

/// How long who may get in may go on; a role that is taken away, or a token that is revoked, is
/// noticed after it.
pub(super) const ALLOWED_FOR: Duration = Duration::from_secs(30);
/// How long who may not is not asked about again; a role that is given is noticed after it.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Answers that are kept.
pub(super) const MAX_KEPT: usize = 1024;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];
/// A token, and what it was used for.
pub(super) type Key = (Digest, Role);

/// Answers by token; those that end first make room.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<Key, (Verdict, Instant)>);

impl Kept {
    /// What was said, if it still counts.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Verdict> {
        let (verdict, until) = self.0.get(key)?;
        (now < *until).then(|| verdict.clone())
    }

    /// Keeps an answer for its time.
    pub(super) fn keep(&mut self, key: Key, verdict: Verdict, now: Instant) {
        if self.0.len() >= MAX_KEPT && !self.0.contains_key(&key) {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() >= MAX_KEPT && !self.0.contains_key(&key) {
            let ends_first = self.0.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(key) = ends_first.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
        let lasts = match verdict {
            Verdict::Allowed(_) => ALLOWED_FOR,
            Verdict::NotAllowed | Verdict::Unknown => REFUSED_FOR,
        };
        self.0.insert(key, (verdict, now + lasts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&number.to_be_bytes());
        (digest, Role::Read)
    }

    #[test]
    fn answers_end_and_invented_tokens_push_out_only_each_other() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        kept.keep(key(0), Verdict::Allowed("ops".into()), now);
        for number in 1..3 * MAX_KEPT {
            kept.keep(key(number), Verdict::Unknown, now);
        }
        assert_eq!(kept.0.len(), MAX_KEPT);
        assert!(
            kept.get(&key(0), now + ALLOWED_FOR - Duration::from_secs(1))
                .is_some()
        );
        assert!(kept.get(&key(0), now + ALLOWED_FOR).is_none());
        assert!(kept.get(&(key(0).0, Role::Write), now).is_none(), "asked for another right");
        // A new one: which of the others are still there is a matter of chance.
        kept.keep(key(4 * MAX_KEPT), Verdict::Unknown, now + REFUSED_FOR);
        assert_eq!(kept.0.len(), 2, "what has ended takes no room");
    }
}
