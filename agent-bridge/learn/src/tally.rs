//! Violations, seen from either end and counted once.

use serde::{Deserialize, Serialize};

/// Violations of one kind of flow, by who saw them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// By the proxy whose word counts for the flow: the server's, or the client's if the server
    /// has none.
    pub judged: u64,
    /// By the client's proxy, which let the flow pass on to a server that judges too.
    pub passed_on: u64,
    /// By the client's proxy, which stopped the flow before the server saw it.
    pub stopped: u64,
}

impl Tally {
    /// Violations without counting twice: a flow that both ends report is one.
    #[must_use]
    pub fn total(self) -> u64 {
        self.judged.max(self.passed_on).saturating_add(self.stopped)
    }

    /// Takes in what another tally of the same flows holds.
    pub fn add(&mut self, other: Self) {
        self.judged = self.judged.saturating_add(other.judged);
        self.passed_on = self.passed_on.saturating_add(other.passed_on);
        self.stopped = self.stopped.saturating_add(other.stopped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_both_ends_report_is_one_violation() {
        let mut tally = Tally { judged: 3, passed_on: 2, stopped: 0 };
        assert_eq!(tally.total(), 3);
        tally.add(Tally { judged: 0, passed_on: 2, stopped: 5 });
        assert_eq!(tally.total(), 9);
    }
}
