//! The race of recognisers over a flow's first bytes.
//!
//! Who speaks first decides who runs. If it is the client, its first bytes alone settle the matter,
//! so that a relay may hold them until then: no recogniser waits for the server's answer. If it is
//! the server, only protocols in which it may are considered, and the client is never waited for.
//! Each recogniser is a pure function of the bytes so far and is given up as soon as it says no; no
//! two of them can say yes to the same flow, so neither their order nor the cuts matter.

use outrider_model::Side;

use crate::{dns, http, http2, inspector::Inspector, mysql, postgres, redis, ssh, tls};

/// Longest beginning that is looked at; each recogniser is satisfied or gives up within it.
pub(crate) const MAX_PREFIX: usize = crate::bytes::MAX_LINE;

/// Most bytes that are kept of the side that speaks second while the first is not yet recognised.
pub(crate) const MAX_SECOND: usize = 4 * 1024;

/// What a recogniser thinks of the first bytes of a side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Guess {
    /// It is not, whatever follows.
    No,
    /// More bytes are needed.
    More,
    /// It is, whatever follows.
    Yes,
}

/// The first bytes of a side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix<'a> {
    /// From the first one on.
    pub(crate) bytes: &'a [u8],
    /// So many of them were already there when the recogniser last said [`Guess::More`].
    pub(crate) seen: usize,
    /// It helps where the bytes alone are not convincing enough.
    pub(crate) port: u16,
}

/// How a recogniser is asked.
type Ask = fn(Prefix<'_>) -> Guess;

/// One entrant of the race.
struct Recogniser {
    /// Whose bytes it looks at, if that side speaks first.
    side: Side,
    guess: Ask,
    start: fn() -> Box<dyn Inspector>,
}

/// The entrants. At most 16: [`Race`] has a bit for each.
const RECOGNISERS: [Recogniser; 11] = [
    client(http::guess_request, http::start),
    client(http2::guess, http2::start),
    client(tls::guess, tls::start),
    client(tls::guess_v2, tls::start_v2),
    client(redis::guess, redis::start),
    client(postgres::guess, postgres::start),
    client(ssh::guess, ssh::start),
    client(dns::guess, dns::start),
    server(ssh::guess, ssh::start),
    server(mysql::guess, mysql::start),
    server(http::guess_response, http::start),
];

const fn client(guess: Ask, start: fn() -> Box<dyn Inspector>) -> Recogniser {
    Recogniser { side: Side::Client, guess, start }
}

const fn server(guess: Ask, start: fn() -> Box<dyn Inspector>) -> Recogniser {
    Recogniser { side: Side::Server, guess, start }
}

/// How a race stands after a chunk.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Not decided.
    Open,
    /// All gave up.
    Nobody,
    /// One protocol, and the bytes its inspector has to be given.
    Found(Box<dyn Inspector>, Earlier),
}

/// What was sent before the race was over.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// Of who spoke first, with the beginning of the last chunk.
    pub(crate) first: Vec<u8>,
    /// How much of the last chunk is in `first`.
    pub(crate) taken: usize,
    /// Of the other one.
    pub(crate) second: Vec<u8>,
}

/// The race of one flow.
#[derive(Debug, Default)]
pub(crate) struct Race {
    leader: Option<Side>,
    out: u16,
    seen: Earlier,
}

impl Race {
    /// Takes the next chunk of a side.
    pub(crate) fn feed(&mut self, side: Side, chunk: &[u8], port: u16) -> Outcome {
        if *self.leader.get_or_insert(side) != side {
            let room = MAX_SECOND.saturating_sub(self.seen.second.len());
            if chunk.len() > room {
                return Outcome::Nobody;
            }
            self.seen.second.extend_from_slice(chunk);
            return Outcome::Open;
        }
        if self.seen.second.is_empty() {
            return self.extend(side, chunk, port);
        }
        // What the second side sent belongs behind the very byte that decides.
        for (before, byte) in chunk.iter().enumerate() {
            match self.extend(side, &[*byte], port) {
                Outcome::Open => {}
                Outcome::Nobody => return Outcome::Nobody,
                Outcome::Found(inspector, mut earlier) => {
                    earlier.taken = before.saturating_add(1);
                    return Outcome::Found(inspector, earlier);
                }
            }
        }
        Outcome::Open
    }

    /// Takes the next bytes of who spoke first.
    fn extend(&mut self, side: Side, bytes: &[u8], port: u16) -> Outcome {
        if self.seen.first.is_empty() {
            let outcome = self.judge(side, Prefix { bytes, seen: 0, port });
            if matches!(outcome, Outcome::Open) {
                self.seen.first.extend_from_slice(bytes);
            }
            return outcome;
        }
        let seen = self.seen.first.len();
        let room = MAX_PREFIX.saturating_sub(seen);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.seen.first.extend_from_slice(taken);
        self.seen.taken = taken.len();
        let prefix = std::mem::take(&mut self.seen.first);
        match self.judge(side, Prefix { bytes: &prefix, seen, port }) {
            Outcome::Found(inspector, earlier) => {
                Outcome::Found(inspector, Earlier { first: prefix, ..earlier })
            }
            other => {
                self.seen.first = prefix;
                other
            }
        }
    }

    /// Whether nothing can be decided once this side has ended.
    pub(crate) fn hangs_on(&self, side: Side) -> bool {
        self.leader == Some(side)
    }

    pub(crate) fn held(&self) -> usize {
        self.seen.first.len().saturating_add(self.seen.second.len())
    }

    fn judge(&mut self, side: Side, mut prefix: Prefix<'_>) -> Outcome {
        prefix.bytes = prefix.bytes.get(..MAX_PREFIX).unwrap_or(prefix.bytes);
        let mut waiting = false;
        for (bit, recogniser) in (0..u16::BITS).zip(&RECOGNISERS) {
            let bit = 1_u16.rotate_left(bit);
            if recogniser.side != side || self.out & bit != 0 {
                continue;
            }
            match (recogniser.guess)(prefix) {
                Guess::Yes => {
                    let earlier = std::mem::take(&mut self.seen);
                    return Outcome::Found((recogniser.start)(), earlier);
                }
                Guess::No => self.out |= bit,
                Guess::More => waiting = true,
            }
        }
        if waiting && prefix.bytes.len() < MAX_PREFIX { Outcome::Open } else { Outcome::Nobody }
    }
}

/// Whether bytes begin like a fixed text, as far as they go.
pub(crate) fn begins(bytes: &[u8], text: &[u8]) -> Guess {
    if bytes.starts_with(text) {
        Guess::Yes
    } else if text.starts_with(bytes) {
        Guess::More
    } else {
        Guess::No
    }
}
