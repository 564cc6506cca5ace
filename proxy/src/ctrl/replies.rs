//! Replies on their way: sent at once if the client reads, kept for a while if it does not.

use std::{
    collections::VecDeque, os::unix::net::UnixDatagram, path::Path, sync::Arc, time::Duration,
};

use tokio::time::Instant;

use super::{CtrlMetrics, link::is_full, metrics::Loss, outbox::Datagram};

/// Replies that clients have not taken yet. One client that does not read holds up nobody else.
#[derive(Debug, Default)]
pub(crate) struct Replies(Vec<Client>);

#[derive(Debug)]
struct Client {
    path: Arc<Path>,
    waiting: VecDeque<Datagram>,
    /// Since when its oldest reply could not be sent.
    stuck_since: Option<Instant>,
}

impl Replies {
    /// Adds replies to one client, or to nobody if the client has no address.
    pub(crate) fn push(
        &mut self,
        to: Option<&Arc<Path>>,
        replies: Vec<Datagram>,
        metrics: &CtrlMetrics,
    ) {
        if replies.is_empty() {
            return;
        }
        let Some(to) = to else {
            metrics.lost(Loss::ReplyUnbound, replies.len() as u64);
            return;
        };
        let Some(client) = self.client(to) else {
            metrics.lost(Loss::ReplyOverflow, replies.len() as u64);
            return;
        };
        let room = MAX_WAITING.saturating_sub(client.waiting.len());
        metrics.lost(Loss::ReplyOverflow, replies.len().saturating_sub(room) as u64);
        client.waiting.extend(replies.into_iter().take(room));
    }

    fn client(&mut self, path: &Arc<Path>) -> Option<&mut Client> {
        let known = self.0.iter().position(|client| client.path == *path);
        if known.is_none() && self.0.len() < MAX_CLIENTS {
            let waiting = VecDeque::new();
            self.0
                .push(Client { path: Arc::clone(path), waiting, stuck_since: None });
        }
        match known {
            Some(at) => self.0.get_mut(at),
            None => self.0.last_mut().filter(|client| client.path == *path),
        }
    }

    /// Sends what the clients take. A client that is gone, or has not read for too long, loses its
    /// replies.
    pub(crate) fn flush(&mut self, socket: &UnixDatagram, now: Instant, metrics: &CtrlMetrics) {
        self.0
            .iter_mut()
            .for_each(|client| client.flush(socket, now, metrics));
        self.0.retain(|client| !client.waiting.is_empty());
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Client {
    fn flush(&mut self, socket: &UnixDatagram, now: Instant, metrics: &CtrlMetrics) {
        while let Some(reply) = self.waiting.front() {
            match socket.send_to(reply, &self.path) {
                Ok(_) => {
                    metrics.replied();
                    self.waiting.pop_front();
                    self.stuck_since = None;
                }
                Err(error) if is_full(&error) => {
                    let since = *self.stuck_since.get_or_insert(now);
                    if now.duration_since(since) >= PATIENCE {
                        self.forget(Loss::ReplyUnread, metrics);
                    }
                    return;
                }
                Err(_gone) => self.forget(Loss::ReplyGone, metrics),
            }
        }
    }

    fn forget(&mut self, loss: Loss, metrics: &CtrlMetrics) {
        metrics.lost(loss, self.waiting.len() as u64);
        self.waiting.clear();
    }
}

/// Datagrams that may wait for one client: one full session list.
pub(crate) const MAX_WAITING: usize = 4096;
/// Clients that may have replies waiting.
pub(crate) const MAX_CLIENTS: usize = 16;
/// How long a client may leave its replies unread.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two tries.
pub(crate) const RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use outrider_telemetry::{Registry, Totals};

    use super::*;

    fn metrics() -> CtrlMetrics {
        CtrlMetrics::register(&Registry::default()).unwrap()
    }

    fn client(n: usize) -> Arc<Path> {
        Path::new(&format!("/nonexistent/{n}")).into()
    }

    #[test]
    fn clients_and_their_replies_are_bounded() {
        let (metrics, mut replies) = (metrics(), Replies::default());
        replies.push(Some(&client(0)), vec![vec![0]; MAX_WAITING + 3], &metrics);
        replies.push(Some(&client(0)), vec![vec![0]; 4], &metrics);
        for n in 1..MAX_CLIENTS {
            replies.push(Some(&client(n)), vec![vec![0]], &metrics);
        }
        replies.push(Some(&client(MAX_CLIENTS)), vec![vec![0]; 5], &metrics);
        assert_eq!(replies.0.len(), MAX_CLIENTS);
        assert_eq!(metrics.dropped(&Totals::default()), [("reply-overflow", 12)].into());
    }

    #[test]
    fn a_client_that_cannot_be_reached_is_forgotten() {
        let (metrics, mut replies) = (metrics(), Replies::default());
        let socket = UnixDatagram::unbound().unwrap();
        replies.push(Some(&client(0)), vec![vec![0]; 2], &metrics);
        replies.flush(&socket, Instant::now(), &metrics);
        assert!(replies.is_empty());
        assert_eq!(metrics.dropped(&Totals::default()), [("reply-gone", 2)].into());
    }
}
