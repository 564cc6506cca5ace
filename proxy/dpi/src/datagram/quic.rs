//! QUIC, by its first packet, and the names in the client's hello.
//!
//! A client's Initial packets are encrypted with keys that anybody can derive from what is on the wire
//! (RFC 9001, section 5.2), so they are opened here and the hello in them is put together: it may be
//! spread over packets and datagrams, in any order, which browsers do on purpose. Nothing else of a
//! flow is read. A hello that does not become whole within the limits is QUIC without names.

mod crypto;
mod header;
mod hello;
#[cfg(test)]
mod tests;

use outrider_model::Side;

use self::{
    crypto::Keys,
    header::{Kind, Long},
    hello::Hello,
};
use super::Datagram;
use crate::{Event, bytes::Reader, tls};

/// A client's first datagram is padded to this (RFC 9000, section 14.1).
const LEAST_FIRST: usize = 1200;
/// Packets of one datagram that are looked at.
const MAX_PACKETS: usize = 8;
/// Datagrams of both sides within which a hello must be whole.
pub(super) const MAX_DATAGRAMS: u8 = 16;

/// An Initial packet of a version whose layout is known.
pub(super) fn is_quic(datagram: Datagram<'_>) -> bool {
    let first_fits = datagram.side == Side::Server || datagram.bytes.len() >= LEAST_FIRST;
    let initial = |long: Long<'_>| long.kind == Kind::Initial && long.holds_something();
    first_fits && Long::read(datagram.bytes).is_some_and(initial)
}

/// A client's hello on its way: what is kept of it, 16 KiB at most.
#[derive(Debug, Default)]
pub(super) struct Quic {
    keys: Option<Keys>,
    hello: Hello,
    datagrams: u8,
}

impl Quic {
    /// Bytes of the client's that are held.
    pub(super) fn held(&self) -> usize {
        self.hello.held()
    }

    /// Takes the next datagram; `true` once no more are wanted. The names are said before that.
    pub(super) fn read(&mut self, datagram: Datagram<'_>, events: &mut Vec<Event>) -> bool {
        self.datagrams = self.datagrams.saturating_add(1);
        if datagram.side == Side::Server {
            return self.datagrams >= MAX_DATAGRAMS;
        }
        let mut rest = datagram.bytes;
        for _ in 0..MAX_PACKETS {
            let Some(long) = Long::read(rest) else { break };
            if long.kind == Kind::Initial {
                self.initial(&long);
            }
            rest = rest.get(long.packet.len()..).unwrap_or_default();
        }
        if let Some(message) = self.hello.whole() {
            let (server_name, protocol) = tls::names(message);
            events.extend(server_name.map(Event::Sni));
            events.extend(protocol.map(Event::Alpn));
            return true;
        }
        self.keys.is_none() || self.hello.is_hopeless() || self.datagrams >= MAX_DATAGRAMS
    }

    /// Opens an Initial packet and takes its part of the hello.
    fn initial(&mut self, long: &Long<'_>) {
        let known = self.keys.as_ref().and_then(|keys| keys.open(long));
        let payload = known.or_else(|| {
            // The first one; or after a Retry or another version: the client starts again.
            let keys = Keys::of_client(long.version, long.destination)?;
            let payload = keys.open(long)?;
            (self.keys, self.hello) = (Some(keys), Hello::default());
            Some(payload)
        });
        if let Some(payload) = payload {
            self.hello.take(&payload);
        }
    }
}

/// A client's first datagram with these frames, padded, as its server would get it; for tests and
/// fuzzing, which cannot guess a tag.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn initial(id: &[u8], token: &[u8], number: u32, frames: &[u8]) -> Option<Vec<u8>> {
    let long = |length: usize| {
        let length = u32::try_from(length)
            .ok()
            .filter(|length| *length < 1 << 30)?;
        Some((length | 0x8000_0000).to_be_bytes())
    };
    let mut header = vec![0xc0, 0, 0, 0, 1, u8::try_from(id.len()).ok()?];
    header.extend(id);
    header.push(0);
    header.extend(long(token.len())?);
    header.extend(token);
    // The length, the number and the tag are not in it yet.
    let room = LEAST_FIRST.saturating_sub(header.len()).saturating_sub(24);
    let mut frames = frames.to_vec();
    frames.resize(frames.len().max(room), 0);
    header.extend(long(frames.len().saturating_add(20))?);
    Keys::of_client(header::Version::One, id)?.seal(&header, number, &frames)
}

/// An integer whose first two bits say how long it is.
fn variable(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    let mut value = u64::from(first & 0x3f);
    let more = 1_u32.wrapping_shl(u32::from(first >> 6)).saturating_sub(1);
    for _ in 0..more {
        value = value.rotate_left(8) | u64::from(reader.u8()?);
    }
    Some(value)
}
