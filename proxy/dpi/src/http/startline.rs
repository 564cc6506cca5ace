//! Request lines and status lines.

use memchr::{memchr, memmem, memrchr2};
use outrider_model::AppId;

use super::pending::Kind;
use crate::{
    bytes::Line,
    recognise::{Guess, MAX_PREFIX, Prefix},
};

/// Longest method.
pub(super) const MAX_METHOD: usize = 24;

/// Most empty lines before a start line that are overlooked, as servers do.
pub(super) const MAX_EMPTY_LINES: u8 = 4;

/// What a request line says.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct RequestLine<'a> {
    pub(super) kind: Kind,
    pub(super) target: &'a [u8],
    pub(super) version: Version,
}

/// The last part of a request line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    /// HTTP/1.x, or what is read like it.
    Http {
        /// The x.
        minor: u8,
    },
    /// None: the simple request of HTTP/0.9.
    Simple,
    /// A protocol with the same first line.
    Other(AppId),
}

/// Reads a request line, as leniently as servers do: what lies between method and version is the
/// target. `None` if no server would take it for a request.
pub(super) fn request<'a>(line: &'a Line<'_>) -> Option<RequestLine<'a>> {
    let text = line.text.trim_ascii_end();
    let end = text.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (method, rest) = text.split_at_checked(end)?;
    let kind = method_kind(method)?;
    let rest = rest.trim_ascii_start();
    if line.bare_cr || memchr(0, rest).is_some() {
        return None;
    }
    if line.overlong {
        return Some(RequestLine { kind, target: rest, version: Version::Http { minor: 1 } });
    }
    if let Some(space) = memrchr2(b' ', b'\t', rest)
        && let Some((target, version)) = rest.split_at_checked(space)
        && let Some(version) = version_of(version.trim_ascii_start())
    {
        return Some(RequestLine { kind, target: target.trim_ascii_end(), version });
    }
    let spaces = rest.iter().any(|byte| matches!(byte, b' ' | b'\t'));
    let simple = method == b"GET" && rest.first() == Some(&b'/') && !spaces;
    simple.then_some(RequestLine { kind, target: rest, version: Version::Simple })
}

/// Reads a status line: the minor version and the status.
pub(super) fn status(line: &Line<'_>) -> Option<(u8, u16)> {
    let rest = line.text.strip_prefix(b"HTTP/1.")?;
    let (&[minor, b' ', a, b, c], reason) = rest.split_first_chunk()? else { return None };
    if !matches!(reason.first(), None | Some(b' ')) || line.bare_cr {
        return None;
    }
    let minor = digit(minor)?;
    let mut status = 0_u16;
    for byte in [a, b, c] {
        status = status.checked_mul(10)?.checked_add(digit(byte)?.into())?;
    }
    Some((minor, status))
}

/// Whether a line that is no request line contains enough of one for a lenient reader.
pub(super) fn resembles_request(line: &Line<'_>) -> bool {
    memmem::find(&line.text, b"HTTP/").is_some()
}

/// Whether a client's first bytes are HTTP/1: a complete request line, or one that is too long and
/// has a usual method.
pub(crate) fn guess_request(prefix: Prefix<'_>) -> Guess {
    let Some(text) = after_empty_lines(prefix.bytes) else { return Guess::No };
    let other = [&b"SSH-"[..], b"PRI "]
        .into_iter()
        .any(|start| text.starts_with(start));
    if other || !text.first().is_none_or(u8::is_ascii_alphabetic) {
        return Guess::No;
    }
    let empty_lines = prefix.bytes.len().saturating_sub(text.len());
    // A carriage return that ended the bytes before may not be at the end any more.
    let checked = prefix.seen.saturating_sub(empty_lines).saturating_sub(1);
    let fresh = text.get(checked..).unwrap_or_default();
    let Some(end) = memchr(b'\n', fresh) else {
        return guess_cut(text, fresh, prefix.bytes.len() >= MAX_PREFIX);
    };
    let text = text.get(..checked.saturating_add(end)).unwrap_or_default();
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if !printable(text) {
        return Guess::No;
    }
    let line = Line { text: text.into(), crlf: true, bare_cr: false, overlong: false };
    if request(&line).is_some() { Guess::Yes } else { Guess::No }
}

/// A request line whose end is not here yet; `fresh` is what was not looked at before.
fn guess_cut(text: &[u8], fresh: &[u8], too_long: bool) -> Guess {
    let fresh = fresh.strip_suffix(b"\r").unwrap_or(fresh);
    let start = text.get(..MAX_METHOD.saturating_add(1)).unwrap_or(text);
    let start = start.strip_suffix(b"\r").unwrap_or(start);
    let end = start
        .iter()
        .position(|byte| *byte == b' ' || *byte == b'\t');
    let method = start.get(..end.unwrap_or(start.len())).unwrap_or_default();
    if (!method.is_empty() && method_kind(method).is_none()) || !printable(fresh) {
        return Guess::No;
    }
    let usual: [&[u8]; 7] =
        [b"GET /", b"POST /", b"HEAD /", b"PUT /", b"DELETE /", b"PATCH /", b"OPTIONS /"];
    match too_long {
        true if usual.iter().any(|start| text.starts_with(start)) => Guess::Yes,
        true => Guess::No,
        false => Guess::More,
    }
}

/// Whether a server that speaks first speaks HTTP, as it does when it will not wait any longer.
pub(crate) fn guess_response(prefix: Prefix<'_>) -> Guess {
    const PATTERN: &[u8; 12] = b"HTTP/1.d ddd";
    let fits = |(byte, wanted): (&u8, &u8)| {
        if *wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted }
    };
    if !prefix.bytes.iter().zip(PATTERN).all(fits) {
        return Guess::No;
    }
    if prefix.bytes.len() < PATTERN.len() { Guess::More } else { Guess::Yes }
}

/// What follows the empty lines that are overlooked; `None` if there are too many.
fn after_empty_lines(mut text: &[u8]) -> Option<&[u8]> {
    for _ in 0..=MAX_EMPTY_LINES {
        let next = text
            .strip_prefix(b"\r\n")
            .or_else(|| text.strip_prefix(b"\n"));
        match next {
            Some(next) => text = next,
            None if text == b"\r" => return Some(&[]),
            None => return Some(text),
        }
    }
    None
}

/// Text, as request lines are: no control characters but the tab. Written so that it vectorises.
fn printable(text: &[u8]) -> bool {
    let plain = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
    text.chunks(64)
        .all(|part| part.iter().fold(true, |all, byte| all & plain(byte)))
}

fn method_kind(method: &[u8]) -> Option<Kind> {
    match method {
        b"GET" | b"POST" => Some(Kind::Plain),
        b"HEAD" => Some(Kind::Head),
        b"CONNECT" => Some(Kind::Connect),
        other if other.len() > MAX_METHOD || other.is_empty() => None,
        other => other
            .iter()
            .all(|byte| is_token(*byte))
            .then_some(Kind::Plain),
    }
}

fn version_of(text: &[u8]) -> Option<Version> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            let (major, minor) = (digit(*major)?, digit(*minor)?);
            // A server that does not refuse a later version reads it as 1.1.
            Some(Version::Http { minor: if major > 1 { 1 } else { major.min(minor) } })
        }
        b"RTSP/1.0" | b"RTSP/2.0" => Some(Version::Other(AppId::RTSP)),
        b"SIP/2.0" => Some(Version::Other(AppId::SIP)),
        _ => None,
    }
}

fn digit(byte: u8) -> Option<u8> {
    if byte.is_ascii_digit() { byte.checked_sub(b'0') } else { None }
}

/// Whether a byte may stand in a method or a header's name.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
