//! What `/healthz/ready` waits for: one guard a subsystem, ready when the last one is dropped.

use std::sync::Arc;

use parking_lot::Mutex;

/// The guards that are still held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<Vec<&'static str>>>);

/// Blocks readiness until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard says that the subsystem is ready"]
pub(crate) struct NotReady {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Makes readiness wait for `name`.
    pub(crate) fn guard(&self, name: &'static str) -> NotReady {
        self.0.lock().push(name);
        NotReady { readiness: self.clone(), name }
    }

    /// Who is not ready.
    #[must_use]
    pub(crate) fn waits_for(&self) -> Vec<&'static str> {
        self.0.lock().clone()
    }
}

impl Drop for NotReady {
    fn drop(&mut self) {
        let mut names = self.readiness.0.lock();
        if let Some(at) = names.iter().position(|name| *name == self.name) {
            names.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::default();
        let (listeners, policy) = (readiness.guard("listeners"), readiness.guard("policy"));
        drop(listeners);
        assert_eq!(readiness.waits_for(), ["policy"]);
        drop(policy);
        assert!(readiness.waits_for().is_empty());
    }
}
