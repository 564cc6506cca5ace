//! Whose proxies tell nothing: what their clients' proxies tell of them counts meanwhile.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{LinkHandle, State};

/// How long a proxy may be away before its clients' word counts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Proxies that are not connected, by workload: since when, or that they count as silent.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<String, Away>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Away {
    Since(Instant),
    Silent,
}

impl Silence {
    pub(super) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

impl State {
    /// Sees who is away, who has been for long, and who is back: that one tells what it saw meanwhile.
    pub(super) fn listen(&mut self) {
        let (now, mut back) = (Instant::now(), Vec::new());
        for workload in self.roster.all() {
            let uid = &workload.uid;
            if self.links.get(uid).is_some_and(LinkHandle::is_connected) {
                back.extend(self.silence.0.remove(uid).map(|_| uid.as_str()));
                continue;
            }
            let away = self.silence.0.entry(uid.clone());
            let away = away.or_insert(Away::Since(now));
            if matches!(away, Away::Since(at) if at.elapsed() >= PATIENCE) {
                *away = Away::Silent;
                self.learner.falls_silent(uid);
                tracing::info!(
                    workload = workload.name,
                    "its proxy is away: its clients' word counts"
                );
            }
        }
        if !back.is_empty() {
            self.learner.speak(back);
        }
    }

    /// A workload was entered anew; its proxy is as silent as before.
    pub(super) fn still_silent(&mut self, uid: &str) {
        if self.silence.0.get(uid) == Some(&Away::Silent) {
            self.learner.falls_silent(uid);
        }
    }
}

#[cfg(test)]
mod tests;
