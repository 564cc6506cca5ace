//! When traffic makes a rule.

use outrider_model::Mode;

/// When traffic makes a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Sessions with data after which an identified application on a port is a rule.
    pub identified_sessions: u64,
    /// Sessions with data after which a port is a rule although no application was identified on
    /// it.
    pub unidentified_sessions: u64,
    /// Mode of a group that was given none.
    pub default_mode: Mode,
}

impl Default for Settings {
    fn default() -> Self {
        Self { identified_sessions: 3, unidentified_sessions: 5, default_mode: Mode::Discover }
    }
}
