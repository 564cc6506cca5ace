//! Header lines: which of them matter, and what they say about the body.
//!
//! Findings ([`ThreatId::SMUGGLING`] unless said otherwise), whether it is a request or a response:
//! two Content-Length values that differ, one that is no number (negative: another threat), both
//! Content-Length and Transfer-Encoding, Transfer-Encoding in HTTP/1.0, a Transfer-Encoding that
//! does not end in one `chunked` (in a response: that is neither that nor made of known codings), and a
//! framing header that is folded, misspelt by spaces or control characters, beside a carriage return
//! that ends no line, or in a head that mixes line ends.

use std::borrow::Cow;

use memchr::memchr;
use outrider_model::{Side, ThreatId};

use super::{startline::is_token, wing::Fault};
use crate::bytes::Line;

/// Headers that are read beside those that frame a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FieldName {
    Host,
    Server,
    Upgrade,
}

/// Such a header and its value.
pub(super) type Field<'a> = (FieldName, Cow<'a, [u8]>);

/// How a message's body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By chunks.
    Chunked,
    /// When the connection ends.
    UntilClose,
}

/// What the lines of a head have said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    http10: bool,
    length: Option<u64>,
    coding: Coding,
    lines_crlf: bool,
    lines_lf: bool,
    previous: Previous,
}

/// The codings that Transfer-Encoding lists, over all its lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Coding {
    /// There is no such header.
    #[default]
    None,
    /// Known codings, none of them `chunked`.
    Known,
    /// Known codings, then `chunked`.
    Chunked,
    /// Anything else.
    Wrong,
}

/// What a folded line continues.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Previous {
    #[default]
    StartLine,
    Framing,
    Other,
}

impl Head {
    pub(super) fn new(http10: bool) -> Self {
        Self { http10, ..Self::default() }
    }

    /// Takes one header line; returns it if the caller has a use for it.
    pub(super) fn line<'a>(
        &mut self,
        side: Side,
        line: Line<'a>,
    ) -> Result<Option<Field<'a>>, Fault> {
        self.note_end(&line);
        let initial = line.text.first().copied().unwrap_or_default();
        if unwanted(side, initial) && !line.bare_cr {
            self.previous = Previous::Other;
            return Ok(None);
        }
        self.candidate(side, line)
    }

    /// Takes note of lines that [`unwanted`] passed over.
    pub(super) fn passed(&mut self) {
        self.lines_crlf = true;
        self.previous = Previous::Other;
    }

    /// The end of the head: how the body is framed.
    pub(super) fn finish(&self, side: Side) -> Result<Framing, Fault> {
        let framed = self.length.is_some() || self.coding != Coding::None;
        if framed && self.lines_crlf && self.lines_lf {
            return Err(Fault::smuggling("line ends mixed beside a framing header"));
        }
        match (self.coding, self.length, side) {
            (Coding::None, Some(length), _) => Ok(Framing::Length(length)),
            (Coding::None, None, Side::Client) => Ok(Framing::Empty),
            (Coding::None, None, Side::Server) => Ok(Framing::UntilClose),
            (Coding::Chunked, _, _) => Ok(Framing::Chunked),
            (Coding::Known, _, Side::Server) => Ok(Framing::UntilClose),
            (Coding::Known | Coding::Wrong, _, _) => {
                Err(Fault::smuggling("Transfer-Encoding does not end in chunked"))
            }
        }
    }

    /// Notes how a line ended, the empty one at the end included.
    pub(super) fn note_end(&mut self, line: &Line<'_>) {
        self.lines_crlf |= line.crlf;
        self.lines_lf |= !line.crlf;
    }

    /// A line that may be of interest by its first byte.
    fn candidate<'a>(&mut self, side: Side, line: Line<'a>) -> Result<Option<Field<'a>>, Fault> {
        let text: &[u8] = &line.text;
        if let Some(b' ' | b'\t') = text.first() {
            self.folded(text)?;
            return Ok(None);
        }
        let colon = memchr(b':', text);
        let name = text.get(..colon.unwrap_or(text.len())).unwrap_or_default();
        let value = colon.map_or(text.len(), |colon| colon.saturating_add(1));
        if colon.is_some() && is_framing(name) {
            self.previous = Previous::Framing;
            return self.framing(&line, value).map(|()| None);
        }
        self.previous = Previous::Other;
        disguised(name, text, line.bare_cr)?;
        let Some(field) = field(name, side).filter(|_| colon.is_some()) else { return Ok(None) };
        Ok(Some((field, trimmed(line.text, value))))
    }

    /// A line that continues the one before.
    fn folded(&self, text: &[u8]) -> Result<(), Fault> {
        let inner = text.trim_ascii();
        if self.previous != Previous::Other || inner.is_empty() || starts_like_framing(inner) {
            return Err(Fault::smuggling("framing header is folded"));
        }
        Ok(())
    }

    fn framing(&mut self, line: &Line<'_>, value: usize) -> Result<(), Fault> {
        if line.bare_cr {
            return Err(Fault::BARE_CR);
        }
        if line.overlong {
            return Err(Fault::smuggling("framing header is too long"));
        }
        let value = line.text.get(value..).unwrap_or_default().trim_ascii();
        if line
            .text
            .first()
            .is_some_and(|byte| byte.eq_ignore_ascii_case(&b'c'))
        {
            self.lengths(value)?;
        } else {
            self.codings(value);
        }
        if self.coding == Coding::None {
            return Ok(());
        }
        if self.length.is_some() {
            return Err(Fault::smuggling("both Content-Length and Transfer-Encoding"));
        }
        if self.http10 {
            return Err(Fault::smuggling("Transfer-Encoding in an HTTP/1.0 message"));
        }
        Ok(())
    }

    /// Reads Content-Length: one number, or the same one several times.
    fn lengths(&mut self, value: &[u8]) -> Result<(), Fault> {
        for part in value.split(|byte| *byte == b',') {
            let part = part.trim_ascii();
            if part.first() == Some(&b'-') {
                return Err(Fault {
                    id: ThreatId::NEGATIVE_LENGTH,
                    message: "negative Content-Length",
                });
            }
            let Some(length) = number(part) else {
                return Err(Fault::smuggling("Content-Length is not a number"));
            };
            if self.length.is_some_and(|known| known != length) {
                return Err(Fault::smuggling("two Content-Length values that differ"));
            }
            self.length = Some(length);
        }
        Ok(())
    }

    fn codings(&mut self, value: &[u8]) {
        for coding in value.split(|byte| *byte == b',') {
            let coding = coding.trim_ascii();
            let known: [&[u8]; 5] = [b"gzip", b"deflate", b"compress", b"x-gzip", b"x-compress"];
            let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
            self.coding = match self.coding {
                Coding::None | Coding::Known if is(b"chunked") => Coding::Chunked,
                Coding::None | Coding::Known if known.into_iter().any(is) => Coding::Known,
                _ => Coding::Wrong,
            };
        }
    }
}

/// Whether no header of use, however misspelt, begins with this byte.
pub(super) fn unwanted(side: Side, initial: u8) -> bool {
    match (initial | 0x20, side) {
        (b'c' | b't', _) | (b'h' | b'u', Side::Client) | (b's', Side::Server) => false,
        _ => initial.is_ascii_alphabetic(),
    }
}

/// Refuses a framing header among the trailers, however it is written.
pub(super) fn trailer(line: &Line<'_>) -> Result<(), Fault> {
    let text = line.text.trim_ascii();
    let name = text
        .get(..memchr(b':', text).unwrap_or(text.len()))
        .unwrap_or_default();
    disguised(name, text, line.bare_cr)?;
    if starts_like_framing(text) {
        return Err(Fault::smuggling("framing header in the trailer"));
    }
    Ok(())
}

/// Refuses what some readers take for a framing header although its name is not spelt right.
fn disguised(name: &[u8], text: &[u8], bare_cr: bool) -> Result<(), Fault> {
    let colon_missing = name.len() == text.len();
    let odd = name.iter().any(|byte| !is_token(*byte));
    if odd || colon_missing {
        let plain: Vec<u8> = name
            .iter()
            .copied()
            .filter(|byte| is_token(*byte))
            .take(LONGEST)
            .collect();
        let framing = if colon_missing { starts_like_framing(&plain) } else { is_framing(&plain) };
        if framing {
            return Err(Fault::smuggling("framing header with a malformed name"));
        }
    }
    if bare_cr
        && text
            .split(|byte| *byte == b'\r')
            .any(|part| starts_like_framing(part.trim_ascii()))
    {
        return Err(Fault::BARE_CR);
    }
    Ok(())
}

/// Enough of a name to recognise the framing headers.
const LONGEST: usize = 32;

const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";

fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(CONTENT_LENGTH) || name.eq_ignore_ascii_case(TRANSFER_ENCODING)
}

fn starts_like_framing(text: &[u8]) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING].into_iter().any(|name| {
        text.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
    })
}

fn field(name: &[u8], side: Side) -> Option<FieldName> {
    match (name.len(), side) {
        (4, Side::Client) if name.eq_ignore_ascii_case(b"host") => Some(FieldName::Host),
        (7, Side::Client) if name.eq_ignore_ascii_case(b"upgrade") => Some(FieldName::Upgrade),
        (6, Side::Server) if name.eq_ignore_ascii_case(b"server") => Some(FieldName::Server),
        _ => None,
    }
}

/// The value that starts at `from`, without the white space around it.
fn trimmed(text: Cow<'_, [u8]>, from: usize) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.get(from..).unwrap_or_default().trim_ascii().into(),
        Cow::Owned(text) => text
            .get(from..)
            .unwrap_or_default()
            .trim_ascii()
            .to_vec()
            .into(),
    }
}

/// A decimal number of digits only, below 2^63.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}
