//! What came in and what was not used, by kind and reason; the closed label sets of both.

use std::collections::BTreeMap;

use outrider_telemetry::{Counter, Durations, MetricError, Registry};

/// Declares a closed set of labels.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
        }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$item,)*];

            /// Every label, in order.
            #[must_use]
            pub fn labels() -> Vec<&'static str> {
                Self::ALL.iter().map(|item| item.label()).collect()
            }

            /// The closed label.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$item => $label,)*
                }
            }
        }
    };
}

counters! {
    /// What came in.
    Received {
        /// Datagrams of any kind.
        Datagrams = "datagrams",
        /// Batches that were new.
        Batches = "batches",
        /// Connection rows.
        Rows = "rows",
        /// Threat logs.
        Threats = "threats",
        /// Sample flows.
        Samples = "samples",
        /// Tables of listening ports.
        AppUpdates = "app-updates",
        /// Names of addresses.
        Names = "names",
    }
}

counters! {
    /// What was not used, and why.
    Dropped {
        /// About a MAC that is not the mailbox's.
        ForeignMac = "foreign-mac",
        /// From a process that the mailbox is not for, or not while another one writes.
        ForeignPeer = "foreign-peer",
        /// From a process of which the system does not say enough.
        UnknownPeer = "unknown-peer",
        /// Not a message.
        Malformed = "malformed",
        /// A kind this build does not know.
        UnknownKind = "unknown-kind",
        /// A reply where only notifications belong.
        WrongKind = "wrong-kind",
        /// A batch that was stored already.
        DuplicateBatch = "duplicate-batch",
        /// A batch of which datagrams were lost.
        IncompleteBatch = "incomplete-batch",
        /// A batch of more datagrams than any may have.
        OversizeBatch = "oversize-batch",
        /// The mailbox's share of the node's queue was used up.
        MailboxFull = "mailbox-full",
        /// The node's queue was full.
        NodeFull = "node-full",
        /// The bridge was stopping.
        Stopping = "stopping",
        /// An address family, direction or number that makes no sense.
        BadRow = "bad-row",
        /// Conversations that made room for others.
        ConversationsFull = "conversations-full",
        /// Kinds of violations that made room for others.
        ViolationsFull = "violations-full",
        /// Beginnings of rules that made room for others.
        CandidatesFull = "candidates-full",
        /// Rules that were not learned because there are as many as may be.
        RulesFull = "rules-full",
        /// Threats that made room for others.
        ThreatsFull = "threats-full",
        /// Findings that made room for others before anybody was told of them.
        ThreatsUntold = "threats-untold",
        /// Sample flows that made room for another workload's.
        SamplesFull = "samples-full",
        /// Names of addresses that made room for others.
        NamesFull = "names-full",
        /// Listening ports that there was no room for.
        PortsFull = "ports-full",
        /// The workload was gone when the report's turn came.
        NoWorkload = "no-workload",
        /// A stored record could not be read back.
        BadRecord = "bad-record",
        /// An acknowledgement could not be handed to the link; the batch comes again.
        AckNotSent = "ack-not-sent",
        /// Sessions or meters of one proxy's list past the cap.
        ListTooLong = "list-too-long",
    }
}

counters! {
    /// Why the API refused somebody.
    Denied {
        /// A token was needed and none was given.
        NoToken = "no-token",
        /// The token is nobody's.
        UnknownToken = "unknown-token",
        /// The token may not change anything.
        ReadOnly = "read-only",
        /// A change over loopback, under a name that is not this machine's.
        ForeignHost = "foreign-host",
        /// The cluster's roles do not let the account.
        NotAllowed = "not-allowed",
        /// The API server could not be asked.
        NotReviewed = "not-reviewed",
    }
}

counters! {
    /// What the API server said of tokens; what was kept is not counted again.
    Reviewed {
        /// An account's, which may.
        Allowed = "allowed",
        /// An account's, which may not.
        NotAllowed = "not-allowed",
        /// Nobody's.
        Unknown = "unknown",
        /// Nothing.
        Failed = "failed",
    }
}

counters! {
    /// Why a client of the API was sent away.
    SentAway {
        /// More happened than is kept before it read the next event.
        SlowListener = "slow-listener",
        /// There were as many listeners to events as may be.
        TooManyListeners = "too-many-listeners",
        /// It took nothing for too long.
        Stalled = "stalled",
        /// Nothing was asked on its connection for too long, or not to the end.
        NoRequest = "no-request",
        /// Its connection was the one that had been idle longest when a place was needed.
        MadeRoom = "made-room",
        /// Everybody who was connected was being answered.
        TooManyConnections = "too-many-connections",
    }
}

counters! {
    /// Why a mailbox is not served.
    Unserved {
        /// The root cannot be read.
        Root = "root",
        /// There are as many as are served.
        TooMany = "too-many",
        /// The workload file's name is none for a mailbox.
        Name = "name",
        /// The workload file makes no sense.
        WorkloadFile = "workload-file",
        /// There is no directory beside it.
        NoDirectory = "no-directory",
        /// Another workload has the MAC.
        Mac = "mac",
        /// The directory cannot be given to the proxy.
        Owner = "owner",
        /// The pod is gone and something in its directory is nobody's.
        LeftOver = "left-over",
        /// Something about the directory or the sockets in it.
        Mailbox = "mailbox",
    }
}

/// All counters of one bridge; clones are handles to the same ones.
#[derive(Clone, Debug)]
pub struct Counts {
    received: Vec<Counter>,
    dropped: Vec<Counter>,
    denied: Vec<Counter>,
    sent_away: Vec<Counter>,
    reviewed: Vec<Counter>,
    /// Sessions entered into conversations, each once though two proxies may report it.
    pub sessions: Counter,
    /// Their bytes, both ways.
    pub bytes: Counter,
    /// Proxies that began anew.
    pub proxy_restarts: Counter,
    /// Times that a mailbox was not read for a while, since it had used up its budget.
    pub pauses: Counter,
    /// Transactions.
    pub commits: Counter,
    /// Transactions that failed and are tried again.
    pub commit_failures: Counter,
    /// How long each took, those that failed too.
    pub commit_time: Durations,
}

/// Upper bounds of a transaction's time, in seconds: from a fast disk to one that hangs.
const COMMIT_BOUNDS: [f64; 8] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

impl Counts {
    /// Registers the families.
    ///
    /// # Errors
    /// When one of their names is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricError> {
        let family = |name: &str, help: &str, label: &str, values: Vec<&'static str>| {
            let name = format!("outrider_bridge_{name}_total");
            let family = registry.counters(&name, help, &[label])?;
            Ok(values.iter().map(|value| family.with(&[value])).collect())
        };
        let counter = |name: &str, help: &str| {
            registry.counter(&format!("outrider_bridge_{name}_total"), help)
        };
        Ok(Self {
            received: family(
                "received",
                "What proxies reported, by kind.",
                "kind",
                Received::labels(),
            )?,
            dropped: family(
                "dropped",
                "What proxies reported and the bridge did not use, by reason.",
                "reason",
                Dropped::labels(),
            )?,
            denied: family(
                "api_denied",
                "Requests to the API that were refused, by reason.",
                "reason",
                Denied::labels(),
            )?,
            sent_away: family(
                "api_sent_away",
                "Clients of the API that were sent away, by reason.",
                "reason",
                SentAway::labels(),
            )?,
            reviewed: family(
                "token_reviews",
                "Tokens that the API server was asked about, by what it said.",
                "outcome",
                Reviewed::labels(),
            )?,
            sessions: counter("sessions", "Sessions entered into conversations, each once.")?,
            bytes: counter("bytes", "Bytes entered into conversations, both ways, each once.")?,
            proxy_restarts: counter("proxy_restarts", "Proxies that began anew.")?,
            pauses: counter(
                "mailbox_pauses",
                "Times that a mailbox was not read for a while, since it had used up its budget.",
            )?,
            commits: counter("commits", "Transactions written to the store.")?,
            commit_failures: counter(
                "commit_failures",
                "Transactions that failed and are tried again.",
            )?,
            commit_time: registry.durations(
                "outrider_bridge_commit_seconds",
                "Time that a transaction took, on the disk included.",
                &COMMIT_BOUNDS,
            )?,
        })
    }

    /// Counts what came in.
    pub fn received(&self, what: Received, count: u64) {
        if let Some(counter) = self.received.get(what as usize) {
            counter.inc_by(count);
        }
    }

    /// Counts what was not used.
    pub fn dropped(&self, why: Dropped, count: u64) {
        if let Some(counter) = self.dropped.get(why as usize) {
            counter.inc_by(count);
        }
    }

    /// Counts a request to the API that was refused.
    pub fn denied(&self, why: Denied) {
        if let Some(counter) = self.denied.get(why as usize) {
            counter.inc();
        }
    }

    /// Counts a token that the API server was asked about.
    pub fn reviewed(&self, what: Reviewed) {
        if let Some(counter) = self.reviewed.get(what as usize) {
            counter.inc();
        }
    }

    /// Counts a client of the API that was sent away.
    pub fn sent_away(&self, why: SentAway) {
        if let Some(counter) = self.sent_away.get(why as usize) {
            counter.inc();
        }
    }

    /// What came in, by kind; kinds that did not are left out.
    #[must_use]
    pub fn all_received(&self) -> BTreeMap<String, u64> {
        labelled(&self.received, Received::ALL.iter().map(|what| what.label()))
    }

    /// What was not used, by reason; reasons that did not occur are left out.
    #[must_use]
    pub fn all_dropped(&self) -> BTreeMap<String, u64> {
        labelled(&self.dropped, Dropped::ALL.iter().map(|why| why.label()))
    }

    /// Clients of the API that were sent away, by reason; reasons that did not occur are left out.
    #[must_use]
    pub fn all_sent_away(&self) -> BTreeMap<String, u64> {
        labelled(&self.sent_away, SentAway::ALL.iter().map(|why| why.label()))
    }
}

fn labelled(
    counts: &[Counter],
    labels: impl Iterator<Item = &'static str>,
) -> BTreeMap<String, u64> {
    labels
        .zip(counts)
        .map(|(label, count)| (label.to_owned(), count.get()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_occur_is_not_listed() {
        let counts = Counts::register(&Registry::default()).unwrap();
        assert!(counts.all_received().is_empty());
        counts.dropped(Dropped::ForeignMac, 2);
        counts.received(Received::Rows, 3);
        assert_eq!(counts.all_dropped(), BTreeMap::from([("foreign-mac".into(), 2)]));
        assert_eq!(counts.all_received(), BTreeMap::from([("rows".into(), 3)]));
    }
}
