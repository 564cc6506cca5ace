//! What `/healthz/ready` waits for: one guard a subsystem, ready when the last one is dropped.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The guards that are still held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    names: Mutex<Vec<&'static str>>,
    fewer: Notify,
}

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
        self.0.names.lock().push(name);
        NotReady { readiness: self.clone(), name }
    }

    /// Who is not ready.
    #[must_use]
    pub(crate) fn waits_for(&self) -> Vec<&'static str> {
        self.0.names.lock().clone()
    }

    /// Waits until the last guard is dropped. Cancel safe.
    pub(crate) async fn reached(&self) {
        loop {
            // Made before the look: what happens in between is not missed.
            let fewer = self.0.fewer.notified();
            if self.0.names.lock().is_empty() {
                return;
            }
            fewer.await;
        }
    }
}

impl Drop for NotReady {
    fn drop(&mut self) {
        let Held { names, fewer } = &*self.readiness.0;
        let mut names = names.lock();
        if let Some(at) = names.iter().position(|name| *name == self.name) {
            names.remove(at);
        }
        drop(names);
        fewer.notify_waiters();
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

    #[tokio::test]
    async fn whoever_waits_hears_of_the_last_guard_only() {
        let readiness = Readiness::default();
        readiness.reached().await;
        let (listeners, policy) = (readiness.guard("listeners"), readiness.guard("policy"));
        let waiting = readiness.reached();
        let others = async {
            drop(policy);
            tokio::task::yield_now().await;
            drop(listeners);
            std::future::pending::<()>().await;
        };
        assert_eq!(readiness.waits_for().len(), 2);
        tokio::select! {
            biased;
            () = waiting => assert!(readiness.waits_for().is_empty()),
            () = others => {}
        }
    }
}
