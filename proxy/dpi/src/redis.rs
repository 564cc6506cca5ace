//! Redis: commands as arrays of strings, or inline.
//!
//! The server's answers are of no interest. A client whose bytes stop being commands (as they do
//! after a switch to TLS, say) is not read any further.

use outrider_model::{AppId, Side};

use crate::{
    Need,
    bytes::pass,
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix, begins},
};

/// Most arguments of a command: Redis's own limit.
const MAX_ARGUMENTS: u64 = 1024 * 1024;

/// Longest argument: Redis's own default limit.
const MAX_BULK: u64 = 512 * 1024 * 1024;

/// Most digits of a number.
const MAX_DIGITS: u8 = 9;

/// Longest inline command: Redis's own limit.
const MAX_INLINE: u32 = 64 * 1024;

/// Whether a client's first bytes are Redis: the head of an array and of its first string, or an
/// inline PING.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let prefix = prefix.bytes;
    if prefix.first() != Some(&b'*') {
        return guess_inline(prefix);
    }
    let mut rest = prefix;
    for sign in *b"*$" {
        let Some((first, digits)) = rest.split_first() else { return Guess::More };
        if *first != sign {
            return Guess::No;
        }
        let end = digits
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(digits.len());
        let after = digits.get(end..).unwrap_or_default();
        if end > MAX_DIGITS.into() || (end == 0 && !after.is_empty()) {
            return Guess::No;
        }
        match begins(after, b"\r\n") {
            Guess::Yes => rest = after.get(2..).unwrap_or_default(),
            other => return other,
        }
    }
    Guess::Yes
}

fn guess_inline(prefix: &[u8]) -> Guess {
    let (word, end) = prefix.split_at_checked(4).unwrap_or((prefix, &[]));
    if !word
        .iter()
        .zip(b"PING")
        .all(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted))
    {
        return Guess::No;
    }
    if end.first() == Some(&b'\n') { Guess::Yes } else { begins(end, b"\r\n") }
}

/// Starts reading a flow that was recognised as Redis.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Redis { state: State::Start, arguments: 0, value: 0, digits: 0 })
}

#[derive(Debug)]
struct Redis {
    state: State,
    /// Arguments of the command that are still to come.
    arguments: u64,
    /// The number being read.
    value: u64,
    digits: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Before a command.
    Start,
    /// In the number of arguments.
    Count,
    /// Before an argument.
    Sign,
    /// In an argument's length.
    Length,
    /// At the line feed after either number.
    LineFeed {
        of_length: bool,
    },
    /// In an argument and the line end after it.
    Bulk(u64),
    /// In an inline command that so far has so many bytes.
    Inline(u32),
    Stopped,
}

impl Inspector for Redis {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        if side == Side::Server {
            return;
        }
        sink.application(AppId::REDIS);
        while let Some((byte, rest)) = chunk.split_first() {
            if let State::Bulk(left) = self.state {
                self.bulk(pass(&mut chunk, left), sink);
            } else if let Some(rest) = self.whole_number(*byte, rest) {
                chunk = rest;
            } else {
                self.state = self.step(*byte, sink);
                chunk = rest;
            }
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        // What is announced ends before the line end, so no command is completed unseen.
        if let (State::Bulk(left), Side::Client) = (self.state, side) {
            self.state = State::Bulk(left.saturating_sub(bytes).max(1));
        }
    }

    fn need(&self, side: Side) -> Need {
        match (side, self.state) {
            (Side::Server, _) | (_, State::Stopped) => Need::Nothing,
            (_, State::Bulk(left)) if left > 2 => Need::Skip(left.saturating_sub(2)),
            _ => Need::Bytes,
        }
    }

    fn held(&self) -> usize {
        0
    }
}

impl Redis {
    /// An argument came closer to its end.
    fn bulk(&mut self, left: u64, sink: &mut Sink<'_>) {
        if left > 0 {
            self.state = State::Bulk(left);
            return;
        }
        self.arguments = self.arguments.saturating_sub(1);
        if self.arguments == 0 {
            sink.request();
            self.state = State::Start;
        } else {
            self.state = State::Sign;
        }
    }

    /// Takes a number's line at once if all of it is here and nothing is wrong with it; what
    /// follows it is returned.
    fn whole_number<'a>(&mut self, sign: u8, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (of_length, limit) = match (self.state, sign) {
            (State::Start, b'*') => (false, MAX_ARGUMENTS),
            (State::Sign, b'$') => (true, MAX_BULK),
            _ => return None,
        };
        let mut rest = bytes;
        let mut value = 0_u64;
        while let Some((digit @ b'0'..=b'9', more)) = rest.split_first() {
            value = value
                .wrapping_mul(10)
                .wrapping_add(digit.wrapping_sub(b'0').into());
            rest = more;
        }
        let digits = bytes.len().saturating_sub(rest.len());
        let rest = rest.strip_prefix(b"\r\n")?;
        if !(1..=MAX_DIGITS.into()).contains(&digits) || value > limit {
            return None;
        }
        self.value = value;
        self.state = self.after_number(of_length);
        Some(rest)
    }

    /// The state behind a number that was read.
    fn after_number(&mut self, of_length: bool) -> State {
        if of_length {
            return State::Bulk(self.value.saturating_add(2));
        }
        self.arguments = self.value;
        if self.value == 0 { State::Start } else { State::Sign }
    }

    fn step(&mut self, byte: u8, sink: &mut Sink<'_>) -> State {
        match (self.state, byte) {
            (State::Start, b'*') => self.number(State::Count),
            (State::Start, b'\r' | b'\n') => State::Start,
            (State::Start, b' '..=b'~') => State::Inline(1),
            (State::Sign, b'$') => self.number(State::Length),
            (state @ (State::Count | State::Length), b'0'..=b'9') => self.digit(state, byte),
            (State::Count, b'\r') if self.digits > 0 => State::LineFeed { of_length: false },
            (State::Length, b'\r') if self.digits > 0 => State::LineFeed { of_length: true },
            (State::LineFeed { of_length }, b'\n') => self.after_number(of_length),
            (State::Inline(_), b'\n') => {
                sink.request();
                State::Start
            }
            (State::Inline(seen), _) if seen < MAX_INLINE => State::Inline(seen.saturating_add(1)),
            _ => State::Stopped,
        }
    }

    fn number(&mut self, state: State) -> State {
        self.value = 0;
        self.digits = 0;
        state
    }

    fn digit(&mut self, state: State, byte: u8) -> State {
        let digit = byte.saturating_sub(b'0');
        self.value = self.value.saturating_mul(10).saturating_add(digit.into());
        self.digits = self.digits.saturating_add(1);
        let limit = if state == State::Count { MAX_ARGUMENTS } else { MAX_BULK };
        if self.digits > MAX_DIGITS || self.value > limit { State::Stopped } else { state }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Side::{Client, Server};

    use super::*;
    use crate::{
        Event, FlowInspector,
        testing::{all_on, events},
    };

    const REDIS: Event = Event::Application(AppId::REDIS);
    const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";

    fn requests(stream: &[u8]) -> usize {
        let seen = events(6379, &[(Client, stream), (Server, b"+OK\r\n")]);
        assert_eq!(seen[0], REDIS, "{}", stream.escape_ascii());
        seen.iter()
            .filter(|event| **event == Event::Request)
            .count()
    }

    #[test]
    fn counts_commands() {
        assert_eq!(requests(GET), 1);
        assert_eq!(requests(&GET.repeat(5)), 5);
        assert_eq!(requests(b"*1\r\n$0\r\n\r\n*0\r\nPING\r\n\r\nSET a b\n"), 3);
        assert_eq!(requests(b"PiNg\r\nset a *1\r\n"), 2);
        assert_eq!(requests(b"ping\n"), 1);
    }

    #[test]
    fn is_decided_by_the_first_string_s_length() {
        assert_eq!(events(1, &[(Client, &GET[..8])]), [REDIS]);
        for cut in 1..8 {
            assert_eq!(events(1, &[(Client, &GET[..cut])]), [Event::Unidentified], "cut at {cut}");
        }
    }

    #[test]
    fn refuses_what_only_begins_like_redis() {
        for text in [
            "*\r\n$3\r\n",
            "*1\n$3\r\n",
            "*-1\r\n$3\r\n",
            "*1234567890\r\n$3\r\n",
            "*1\r\n:3\r\n",
            "*1\r\n$\r\n",
            "*1\r\n$3x",
            "PING hello\r\n",
            "PINGS\r\n",
            "+PONG\r\n",
        ] {
            assert_eq!(events(6379, &[(Client, text.as_bytes())]), [Event::Unidentified], "{text}");
        }
        assert_eq!(events(6379, &[(Server, b"+OK\r\n")]), [Event::Unidentified]);
    }

    #[test]
    fn stops_at_what_is_no_command_and_at_every_limit() {
        for rest in [
            "*2\r\n+OK\r\n",
            "*1048577\r\n",
            "*1\r\n$536870913\r\n",
            "*1\r\n$0000000001\r\n",
            "*1\r\n$-1\r\n",
            "*1\rx",
            "\x16\x03\x01\x02",
        ] {
            let stream = [GET, rest.as_bytes(), GET].concat();
            assert_eq!(requests(&stream), 1, "{rest}");
        }
        let longest = "x".repeat(MAX_INLINE as usize);
        assert_eq!(requests(&[GET, longest.as_bytes(), b"\n", GET].concat()), 3);
        assert_eq!(requests(&[GET, longest.as_bytes(), b"x\n", GET].concat()), 1);
    }

    #[test]
    fn long_arguments_are_opaque_but_for_their_end() {
        let mut inspector = FlowInspector::new(all_on(), 6379);
        let mut events = Vec::new();
        let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nabcd";
        let interest = inspector.feed(Client, head, &mut events);
        assert_eq!((interest.client, interest.server), (Need::Skip(996), Need::Nothing));
        assert_eq!(inspector.skip(Client, 996, &mut events).client, Need::Bytes);
        assert_eq!(events, [REDIS]);
        assert_eq!(inspector.feed(Client, b"\r\n", &mut events).client, Need::Bytes);
        assert_eq!(events, [REDIS, Event::Request]);
    }
}
