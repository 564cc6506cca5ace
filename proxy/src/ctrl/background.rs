//! Work that would hold up the ctrl thread, one piece of a kind at a time.

use tokio::task::{JoinError, JoinHandle};

/// A piece of work that may be running.
#[derive(Debug)]
pub(crate) struct Background<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> Background<T> {
    /// Nothing is running.
    #[must_use]
    pub(crate) fn idle() -> Self {
        Self(None)
    }

    /// Whether nothing is running.
    #[must_use]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Starts `work` on a thread of its own. The caller asked [`Self::is_idle`].
    pub(crate) fn start(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        self.0 = Some(tokio::task::spawn_blocking(work));
    }

    /// Waits for the result; for ever if nothing is running. Cancel safe.
    pub(crate) async fn done(&mut self) -> Result<T, JoinError> {
        match &mut self.0 {
            Some(running) => {
                let result = running.await;
                self.0 = None;
                result
            }
            None => std::future::pending().await,
        }
    }
}
