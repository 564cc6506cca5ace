//! Reading bytes that a peer sent, cut wherever it likes: heads, and lines without copies.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
pub(crate) use outrider_model::bytes::Reader;

/// Longest line that is kept; of a longer one only this much is seen.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// Takes up to `left` bytes off a chunk and says how many are left after that.
pub(crate) fn pass(chunk: &mut &[u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
    *chunk = chunk.get(here..).unwrap_or_default();
    left.saturating_sub(here as u64)
}

/// Collects a fixed-size header whose chunks may cut it anywhere, without a heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Small<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Small<N> {
    /// Moves bytes off `chunk` until `wanted`, at most N, are here; returns them once they are.
    pub(crate) fn fill(&mut self, chunk: &mut &[u8], wanted: usize) -> Option<&[u8]> {
        let wanted = wanted.min(N);
        let missing = wanted.saturating_sub(self.len).min(chunk.len());
        let (head, rest) = chunk.split_at_checked(missing)?;
        let end = self.len.saturating_add(missing);
        self.bytes.get_mut(self.len..end)?.copy_from_slice(head);
        self.len = end;
        *chunk = rest;
        if end < wanted { None } else { self.bytes.get(..wanted) }
    }

    /// All that is here.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Starts again.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Cuts a stream into lines; a line that is whole in its chunk is not copied.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    overlong: bool,
}

/// One line without its end.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) text: Cow<'a, [u8]>,
    /// It ended in CR LF rather than LF alone.
    pub(crate) crlf: bool,
    /// A carriage return stands inside it.
    pub(crate) bare_cr: bool,
    /// It was longer than [`MAX_LINE`]: `text` is its beginning.
    pub(crate) overlong: bool,
}

impl Line<'_> {
    /// Bytes of the line with its end, as far as they are kept.
    pub(crate) fn size(&self) -> usize {
        self.text
            .len()
            .saturating_add(if self.crlf { 2 } else { 1 })
    }

    /// Whether this is an empty line.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl Lines {
    /// Passes lines of headers while nothing is unusual about them and `unwanted` says of their first
    /// byte that they are of no use; how many bytes they had.
    pub(crate) fn pass(&self, chunk: &mut &[u8], unwanted: impl Fn(u8) -> bool) -> usize {
        let before = chunk.len();
        if !self.partial.is_empty() {
            return 0;
        }
        while chunk.first().is_some_and(|byte| unwanted(*byte))
            && let Some(end) = memchr2(b'\r', b'\n', chunk)
            && end < MAX_LINE
            && let Some(rest) = chunk.get(end..).and_then(|rest| rest.strip_prefix(b"\r\n"))
        {
            *chunk = rest;
        }
        before.saturating_sub(chunk.len())
    }

    /// The next line, if the chunk has its end; else keeps what there is of it.
    pub(crate) fn next<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Line<'a>> {
        if self.partial.is_empty()
            && let Some(end) = memchr2(b'\r', b'\n', chunk)
            && end < MAX_LINE
            && let Some((text, rest)) = chunk.split_at_checked(end)
            && let Some(rest) = rest.strip_prefix(b"\r\n")
        {
            *chunk = rest;
            return Some(Line { text: text.into(), crlf: true, bare_cr: false, overlong: false });
        }
        self.next_unusual(chunk)
    }

    /// A line that is cut, or does not end in CR LF, or has a carriage return inside.
    fn next_unusual<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Line<'a>> {
        let Some(end) = memchr(b'\n', chunk) else {
            self.keep(chunk);
            *chunk = &[];
            return None;
        };
        let (text, rest) = chunk.split_at_checked(end)?;
        *chunk = rest.get(1..).unwrap_or_default();
        if !self.partial.is_empty() {
            self.keep(text);
            let overlong = std::mem::take(&mut self.overlong);
            return Some(line(std::mem::take(&mut self.partial).into(), overlong));
        }
        Some(line(text.get(..MAX_LINE).unwrap_or(text).into(), text.len() > MAX_LINE))
    }

    fn keep(&mut self, text: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        self.overlong |= text.len() > room;
        self.partial
            .extend_from_slice(text.get(..room).unwrap_or(text));
    }

    pub(crate) fn held(&self) -> usize {
        self.partial.len()
    }
}

/// A line from its text, with the carriage return that may end it.
fn line(mut text: Cow<'_, [u8]>, overlong: bool) -> Line<'_> {
    let crlf = overlong || text.last() == Some(&b'\r');
    if crlf && !overlong {
        match &mut text {
            Cow::Borrowed(text) => *text = text.split_last().map_or(*text, |(_, text)| text),
            Cow::Owned(text) => drop(text.pop()),
        }
    }
    let bare_cr = memchr(b'\r', &text).is_some();
    Line { text, crlf, bare_cr, overlong }
}

/// Text, if it is not empty and every byte of it is a visible ASCII character.
pub(crate) fn graphic(text: &[u8]) -> Option<&str> {
    let visible = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    if visible { std::str::from_utf8(text).ok() } else { None }
}

/// A name as events show it: visible ASCII, lower case, at most `limit` bytes.
pub(crate) fn name(text: &[u8], limit: usize) -> Option<Box<str>> {
    let text = graphic(text).filter(|text| text.len() <= limit)?;
    Some(text.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of a stream that is fed in chunks of `size`.
    fn lines(stream: &[u8], size: usize) -> Vec<(Vec<u8>, bool, bool, bool)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for mut chunk in stream.chunks(size) {
            while let Some(line) = lines.next(&mut chunk) {
                found.push((line.text.to_vec(), line.crlf, line.bare_cr, line.overlong));
            }
        }
        found
    }

    #[test]
    fn cuts_lines_the_same_way_whatever_the_chunks() {
        let mut stream = b"GET / HTTP/1.1\r\n\r\nbare\nfeed\r\r\na\rb\r\n\n\r\n".to_vec();
        stream.extend(vec![b'x'; MAX_LINE]);
        stream.extend(b"\r\n");
        stream.extend(vec![b'y'; MAX_LINE - 1]);
        stream.extend(b"\r\nlast\n");
        let whole = lines(&stream, usize::MAX);
        assert_eq!(whole.len(), 10);
        assert_eq!(whole[3], (b"feed\r".to_vec(), true, true, false));
        assert!(whole[7].3 && !whole[8].3, "one byte decides");
        for size in [1, 2, 3, 7, 4096] {
            assert_eq!(lines(&stream, size), whole, "chunks of {size}");
        }
    }

    #[test]
    fn holds_no_more_than_the_longest_line() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.next(&mut &[b'x'; 1000][..]).is_none());
        }
        assert_eq!(lines.held(), MAX_LINE);
    }
}
