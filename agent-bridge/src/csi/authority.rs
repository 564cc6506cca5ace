//! Connections of the kubelet's. Its gRPC client says the path of the socket as `:authority`, which is none, and our HTTP/2
//! refuses the request for it: kubelets up to 1.25 do that on both sockets, later ones still when a driver registers.
//! Nobody looks at the name on a socket that leads to one server, so here it becomes another.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tonic::transport::server::Connected;

/// What a connection begins with, before the first frame.
const PREFACE: usize = 24;
/// Of a frame: length (3), kind, flags, stream (4).
const FRAME: usize = 9;
/// The kind of frame that headers are in.
const HEADERS: u8 = 1;
/// Flags: the headers end with the frame; the frame is padded; it has a priority.
const END: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Octets of a priority.
const PRIORITY_LENGTH: usize = 5;
/// Longest frame that anybody may send unless told otherwise. A longer one is left as it is: HTTP/2 refuses it.
const MAX_FRAME: usize = 16_384;
/// What is read at a time.
const PIECE: usize = 4096;
/// `:authority` in the table of names that everybody knows.
const AUTHORITY: usize = 1;
/// What it becomes: a plain string with its length.
const NAME: &[u8] = b"\x09localhost";
/// Octets of one number; more would be larger than a frame.
const MAX_DIGITS: u32 = 4;

/// A connection of the kubelet's with a name that HTTP/2 takes.
#[derive(Debug)]
pub(super) struct Named {
    stream: UnixStream,
    incoming: Incoming,
    /// Ready to be read, up to `read` already is.
    ready: Vec<u8>,
    read: usize,
}

impl Named {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default(), ready: Vec::new(), read: 0 }
    }
}

impl Connected for Named {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Named {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.ready.len() {
            let mut piece = [0; PIECE];
            let mut buffer = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.read = 0;
            this.incoming.take(buffer.filled(), &mut this.ready);
        }
        let rest = this.ready.get(this.read..).unwrap_or_default();
        let some = rest.get(..into.remaining()).unwrap_or(rest);
        into.put_slice(some);
        this.read += some.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Named {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What the other end sends, frame by frame.
#[derive(Debug)]
struct Incoming {
    /// Octets that go by as they are: the preface at first, then what is in frames without headers.
    passing: usize,
    /// A frame's beginning, or a whole frame of headers that has not come to its end.
    kept: Vec<u8>,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { passing: PREFACE, kept: Vec::new() }
    }
}

impl Incoming {
    /// Takes what came, hands on what it makes of it.
    fn take(&mut self, mut came: &[u8], out: &mut Vec<u8>) {
        while !came.is_empty() {
            let wanted = if self.passing > 0 { self.passing } else { self.lacking() };
            let (some, rest) = came.split_at(wanted.min(came.len()));
            came = rest;
            if self.passing > 0 {
                self.passing -= some.len();
                out.extend_from_slice(some);
                continue;
            }
            self.kept.extend_from_slice(some);
            if self.lacking() > 0 {
                continue;
            }
            if self.kept.len() == FRAME && !self.is_rewritten() {
                self.passing = self.length();
                out.append(&mut self.kept);
            } else {
                out.append(&mut rewritten(&self.kept).unwrap_or_else(|| self.kept.clone()));
                self.kept.clear();
            }
        }
    }

    /// Octets until the frame's beginning is there, or, of one that is rewritten, its end.
    fn lacking(&self) -> usize {
        let whole = match self.kept.len() >= FRAME && self.is_rewritten() {
            true => FRAME + self.length(),
            false => FRAME,
        };
        whole.saturating_sub(self.kept.len())
    }

    fn length(&self) -> usize {
        let octets = self.kept.get(..3).unwrap_or_default();
        octets
            .iter()
            .fold(0, |sum, octet| (sum << 8) | usize::from(*octet))
    }

    /// Whole headers, not padded, of a length that is allowed. Others are never seen, and left alone.
    fn is_rewritten(&self) -> bool {
        let (kind, flags) = (self.kept.get(3), self.kept.get(4).copied().unwrap_or_default());
        kind == Some(&HEADERS)
            && flags & END != 0
            && flags & PADDED == 0
            && (1..=MAX_FRAME).contains(&self.length())
    }
}

/// A frame of headers with another `:authority`; nothing if it is not what it should be.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let skipped = if frame.get(4)? & PRIORITY == 0 { FRAME } else { FRAME + PRIORITY_LENGTH };
    let mut out = frame.get(..skipped)?.to_vec();
    let mut block = frame.get(skipped..)?;
    while let Some(first) = block.first() {
        let before = block;
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = number(&mut block, bits)?;
        if literal && name == 0 {
            string(&mut block)?;
        }
        let named = before.len() - block.len();
        if literal {
            string(&mut block)?;
        }
        let whole = before.len() - block.len();
        if literal && name == AUTHORITY {
            out.extend_from_slice(before.get(..named)?);
            out.extend_from_slice(NAME);
        } else {
            out.extend_from_slice(before.get(..whole)?);
        }
    }
    let length = u32::try_from(out.len() - FRAME).ok()?.to_be_bytes();
    out.get_mut(..3)?.copy_from_slice(length.get(1..)?);
    Some(out)
}

/// A number of HPACK whose first octet has that many bits for it (RFC 7541, 5.1).
fn number(block: &mut &[u8], bits: u32) -> Option<usize> {
    let largest = (1 << bits) - 1;
    let (first, mut rest) = block.split_first()?;
    let mut value = usize::from(*first) & largest;
    if value == largest {
        for digit in 0..=MAX_DIGITS {
            let (next, after) = rest.split_first()?;
            rest = after;
            value += (usize::from(*next) & 0x7f) << (7 * digit);
            if next & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

/// Passes over a string of HPACK, packed or not (RFC 7541, 5.2).
fn string(block: &mut &[u8]) -> Option<()> {
    let length = number(block, 7)?;
    *block = block.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fa-reg.sock";

    /// `:method POST`, the authority, and a header with a name of its own.
    fn headers(authority: &[u8], flags: u8) -> Vec<u8> {
        let mut block = vec![0x83, 0x41];
        block.extend_from_slice(authority);
        block.extend_from_slice(b"\x40\x02te\x08trailers");
        let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), HEADERS, flags, 0, 0, 0, 1];
        frame.append(&mut block);
        frame
    }

    fn plain(text: &str) -> Vec<u8> {
        let mut string = vec![u8::try_from(text.len()).unwrap()];
        string.extend_from_slice(text.as_bytes());
        string
    }

    fn sent(pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
        let (mut incoming, mut out) = (Incoming::default(), Vec::new());
        pieces.for_each(|piece| incoming.take(piece, &mut out));
        out
    }

    #[test]
    fn an_authority_becomes_one_whatever_the_pieces() {
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, 7, 8, 9];
        let connection = |frame: &[u8]| [&b"P".repeat(PREFACE), frame, &data, frame].concat();
        let came = connection(&headers(&plain(PATH), END));
        let expected = connection(&headers(NAME, END));
        assert_eq!(sent(&mut [&*came].into_iter()), expected);
        for size in 1..came.len() {
            assert_eq!(sent(&mut came.chunks(size)), expected, "{size}");
        }
    }

    #[test]
    fn what_cannot_be_read_goes_by_as_it_is() {
        let mut short = headers(&plain(PATH), END);
        short[10 + FRAME - 8] = 0xff;
        let endless = [0, 0, 8, HEADERS, END, 0, 0, 0, 1, 0x41, 0x7f, 255, 255, 255, 255, 255, 255];
        let padded = headers(&plain(PATH), END | PADDED);
        let open = headers(&plain(PATH), 0);
        let long = [0xff, 0xff, 0xff, HEADERS, END, 0, 0, 0, 1, 1, 2, 3];
        for frame in [&*short, &endless, &padded, &open, &long] {
            let came = [&b"P".repeat(PREFACE), frame].concat();
            assert_eq!(sent(&mut came.chunks(5)), came);
        }
    }

    #[test]
    fn numbers_end() {
        let read = |mut block: &[u8]| number(&mut block, 5);
        assert_eq!(read(&[0x1f, 0x9a, 0x0a]), Some(1337));
        assert_eq!(read(&[0x0a]), Some(10));
        assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(read(&[0x1f]), None);
    }
}
