//! Why a rule was learned.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// Distinct clients that are told apart; the count stops there.
pub const MAX_CLIENTS: usize = 32;

/// Flows kept as examples.
pub const MAX_SAMPLES: usize = 4;

/// One flow as an example.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FlowSample {
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it went.
    pub server: SocketAddr,
}

impl fmt::Display for FlowSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.client, self.server)
    }
}

/// What speaks for a rule.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Evidence {
    /// Sessions.
    pub sessions: u64,
    /// Sessions that carried data.
    pub data_sessions: u64,
    /// Sessions of which no byte was reported yet.
    silent_sessions: u64,
    /// Bytes, both ways.
    pub bytes: u64,
    /// Some client addresses in order, at most [`MAX_CLIENTS`].
    clients: Vec<IpAddr>,
    /// First sight, Unix seconds.
    pub first_seen: u64,
    /// Last sight, Unix seconds.
    pub last_seen: u64,
    /// The newest examples.
    pub samples: Vec<FlowSample>,
    /// Which application it is, only the client's proxy said: the server's saw none. Whoever
    /// enforces it there must let pass what it can't identify.
    #[serde(default)]
    pub by_client: bool,
}

impl Evidence {
    /// Distinct client addresses; exact below [`MAX_CLIENTS`], which means "that many or more".
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Some client addresses, at most [`MAX_CLIENTS`].
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.clients.iter().copied()
    }

    /// Takes in sessions and bytes of one row. A session may be reported before its first byte.
    pub fn count(&mut self, sessions: u64, bytes: u64) {
        self.sessions = self.sessions.saturating_add(sessions);
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes == 0 {
            self.silent_sessions = self.silent_sessions.saturating_add(sessions);
            return;
        }
        let late = if sessions == 0 { self.silent_sessions.min(1) } else { 0 };
        self.silent_sessions -= late;
        self.data_sessions = self
            .data_sessions
            .saturating_add(sessions)
            .saturating_add(late);
    }

    pub(crate) fn see(&mut self, client: IpAddr, first_seen: u64, last_seen: u64) {
        self.see_all([client], first_seen, last_seen);
    }

    /// Notes clients, and when they were seen.
    pub fn see_all(
        &mut self,
        clients: impl IntoIterator<Item = IpAddr>,
        first_seen: u64,
        last_seen: u64,
    ) {
        clients.into_iter().for_each(|client| self.add(client));
        let is_first = self.last_seen == 0;
        self.first_seen = if is_first { first_seen } else { self.first_seen.min(first_seen) };
        self.last_seen = self.last_seen.max(last_seen);
    }

    /// Notes whose word the application is, before the flows are counted; says whether that
    /// became the server's own.
    pub(crate) fn named(&mut self, by_client: bool) -> bool {
        let before = self.by_client;
        self.by_client = by_client && (before || self.last_seen == 0);
        before && !self.by_client
    }

    /// Takes over what was noted elsewhere about the same flows.
    pub(crate) fn absorb(&mut self, other: Self) {
        let add = |own: &mut u64, more: u64| *own = own.saturating_add(more);
        add(&mut self.sessions, other.sessions);
        add(&mut self.data_sessions, other.data_sessions);
        add(&mut self.silent_sessions, other.silent_sessions);
        add(&mut self.bytes, other.bytes);
        let is_first = self.last_seen == 0;
        self.first_seen =
            if is_first { other.first_seen } else { self.first_seen.min(other.first_seen) };
        self.last_seen = self.last_seen.max(other.last_seen);
        other
            .clients
            .into_iter()
            .for_each(|client| self.add(client));
        let older = other.samples.into_iter().rev();
        for sample in older.take(MAX_SAMPLES.saturating_sub(self.samples.len())) {
            if !self.samples.contains(&sample) {
                self.samples.insert(0, sample);
            }
        }
    }

    /// Adds a client, in its place.
    fn add(&mut self, client: IpAddr) {
        if let Err(place) = self.clients.binary_search(&client)
            && self.clients.len() < MAX_CLIENTS
        {
            self.clients.insert(place, client);
        }
    }

    pub(crate) fn show(&mut self, sample: FlowSample) {
        if self.samples.contains(&sample) {
            return;
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.remove(0);
        }
        self.samples.push(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_speaks_late_counts_once() {
        let mut evidence = Evidence::default();
        evidence.count(2, 0);
        assert_eq!((evidence.sessions, evidence.data_sessions), (2, 0));
        evidence.count(0, 10);
        evidence.count(0, 10);
        evidence.count(0, 10);
        assert_eq!((evidence.sessions, evidence.data_sessions, evidence.bytes), (2, 2, 30));
        evidence.count(3, 5);
        assert_eq!((evidence.sessions, evidence.data_sessions), (5, 5));
    }

    #[test]
    fn clients_and_samples_are_bounded() {
        let mut evidence = Evidence::default();
        for at in 0..200u8 {
            let client = SocketAddr::from(([10, 0, 0, at], 40_000));
            evidence.see(client.ip(), 5 + u64::from(at), 7);
            evidence.show(FlowSample { client, server: SocketAddr::from(([10, 0, 1, 1], 80)) });
        }
        assert_eq!((evidence.clients(), evidence.samples.len()), (MAX_CLIENTS, MAX_SAMPLES));
        assert_eq!((evidence.first_seen, evidence.last_seen), (5, 7));
        assert_eq!(evidence.samples[3].to_string(), "10.0.0.199:40000 > 10.0.1.1:80");
    }
}
