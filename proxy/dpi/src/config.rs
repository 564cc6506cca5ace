//! Which detectors are on.

use std::collections::BTreeSet;

use outrider_model::ThreatId;

/// What a [`FlowInspector`](crate::FlowInspector) looks for. Shared by all flows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DpiConfig {
    on: BTreeSet<ThreatId>,
}

impl DpiConfig {
    /// Switches one detector on or off.
    #[must_use]
    pub fn with_threat(mut self, threat: ThreatId, on: bool) -> Self {
        if on {
            self.on.insert(threat);
        } else {
            self.on.remove(&threat);
        }
        self
    }

    /// Whether a detector is on.
    #[must_use]
    pub fn is_on(&self, threat: ThreatId) -> bool {
        self.on.contains(&threat)
    }
}

impl Default for DpiConfig {
    /// The built-in threats that are on by default.
    fn default() -> Self {
        Self {
            on: ThreatId::all()
                .filter(|threat| threat.on_by_default())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_with_what_is_on_by_default_and_can_be_switched() {
        let config = DpiConfig::default();
        assert!(config.is_on(ThreatId::SMUGGLING));
        assert!(!config.is_on(ThreatId::TLS_1_0));
        let config = config
            .with_threat(ThreatId::TLS_1_0, true)
            .with_threat(ThreatId::SMUGGLING, false);
        assert!(config.is_on(ThreatId::TLS_1_0));
        assert!(!config.is_on(ThreatId::SMUGGLING));
    }
}
