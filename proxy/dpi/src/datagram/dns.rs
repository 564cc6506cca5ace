//! DNS over UDP, mDNS included.

use outrider_model::{Side, ThreatId};

use super::Datagram;
use crate::{
    bytes::Reader,
    dns_message::{DNS_HEADER, DnsHeader, DnsName},
    inspector::Sink,
};

/// Questions and records of a message that are looked at.
pub(crate) const MAX_ENTRIES: usize = 256;
/// Pointers that a name may follow.
const MAX_POINTERS: usize = 63;
/// A message above this that cannot be read is an attack on who reads it.
pub(crate) const HUGE: u64 = 2048;

const PORT: u16 = 53;
const MULTICAST_PORT: u16 = 5353;
pub(crate) const NULL: u16 = 10;
pub(crate) const IXFR: u16 = 251;
pub(crate) const AXFR: u16 = 252;

/// A message all of whose entries can be read, up to its last byte.
pub(super) fn is_dns(datagram: Datagram<'_>) -> bool {
    let Some(header) = DnsHeader::read(datagram.bytes) else { return false };
    let own_port = matches!(datagram.port, PORT | MULTICAST_PORT);
    let opcode = header.flags.rotate_right(11) & 0xf;
    let reserved = header.flags & 0x0040 != 0;
    let side = if header.is_answer() { Side::Server } else { Side::Client };
    let side_fits = side == datagram.side || datagram.port == MULTICAST_PORT;
    let asks_one = header.questions == 1 || datagram.port == MULTICAST_PORT;
    if !side_fits || !asks_one || reserved || !matches!(opcode, 0 | 2 | 4 | 5) {
        return false;
    }
    if !own_port && (opcode != 0 || (side == Side::Client && header.rcode() != 0)) {
        return false;
    }
    entries(datagram.bytes, header, |_| {}) == Some(datagram.bytes.len())
}

/// Reads a message of a flow that is DNS.
pub(super) fn read(datagram: Datagram<'_>, sink: &mut Sink<'_>) {
    let Some(header) = DnsHeader::read(datagram.bytes) else { return };
    if !header.is_answer() {
        sink.request();
    }
    let (mut transfer, mut null) = (false, false);
    let end = entries(datagram.bytes, header, |kind| match kind {
        AXFR | IXFR => transfer = true,
        NULL => null = true,
        _ => {}
    });
    if transfer {
        sink.threat(ThreatId::ZONE_TRANSFER, datagram.side, "question for a whole zone");
    }
    if null {
        sink.threat(ThreatId::DNS_NULL, datagram.side, "question of type NULL");
    }
    if end.is_none() {
        look_broken(datagram, sink);
    }
}

/// Looks at what should be a message and cannot be read.
pub(super) fn look_broken(datagram: Datagram<'_>, sink: &mut Sink<'_>) {
    let Some(header) = DnsHeader::read(datagram.bytes) else { return };
    if datagram.port != PORT || header.questions == 0 {
        return;
    }
    if loops(datagram.bytes, DNS_HEADER) {
        sink.threat(ThreatId::DNS_LOOP, datagram.side, "name whose pointers go in circles");
    } else if datagram.bytes.len() as u64 > HUGE && sink.app.is_some() {
        sink.threat(ThreatId::DNS_OVERFLOW, datagram.side, "huge message that cannot be read");
    }
}

/// Goes through questions and records; tells the types of the questions, returns where they end.
fn entries(message: &[u8], header: DnsHeader, mut question: impl FnMut(u16)) -> Option<usize> {
    let questions = usize::from(header.questions);
    let count = [header.answers, header.authorities, header.extras]
        .into_iter()
        .map(usize::from)
        .fold(questions, usize::saturating_add);
    if count > MAX_ENTRIES {
        return None;
    }
    let mut at = DNS_HEADER;
    for index in 0..count {
        let (_, behind) = DnsName::read(message, at)?;
        let mut reader = Reader::new(message.get(behind..)?);
        let (kind, _class) = (reader.be16()?, reader.be16()?);
        if index < questions {
            question(kind);
        } else {
            reader.be32()?;
            reader.block16()?;
        }
        at = message.len().checked_sub(reader.rest().len())?;
    }
    Some(at)
}

/// Whether the name at a place follows more pointers than any name needs.
pub(crate) fn loops(message: &[u8], mut at: usize) -> bool {
    let mut pointers = 0_usize;
    // Each step goes over one label or one pointer.
    for _ in 0..MAX_POINTERS.saturating_mul(4) {
        let Some(&length) = message.get(at) else { return false };
        match length >> 6 {
            0 if length == 0 => return false,
            0 => at = at.saturating_add(1).saturating_add(length.into()),
            3 => {
                let Some(&low) = message.get(at.saturating_add(1)) else { return false };
                at = u16::from_be_bytes([length & 0x3f, low]).into();
                pointers = pointers.saturating_add(1);
            }
            _ => return false,
        }
        if pointers > MAX_POINTERS {
            return true;
        }
    }
    pointers > 0
}
