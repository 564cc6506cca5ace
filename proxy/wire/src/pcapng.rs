//! Captured packets as they go from a proxy to the bridge and on to whoever asked: a pcapng file of
//! four kinds of blocks, each in one form only, so that what a pod hands over is looked at without
//! trusting it. A section header, then packets, each behind the description of its interface, at the
//! end the totals.

#[cfg(test)]
mod tests;

use outrider_model::bytes::Reader;

use crate::WireError;

/// Longest packet in bytes: 64 KiB, link header and VLAN tag.
pub const MAX_PACKET_BYTES: usize = 65_535 + 64;
/// Interfaces of one file.
pub const MAX_INTERFACES: u32 = 64;
/// Longest name of an interface, in bytes.
pub const MAX_INTERFACE_NAME: usize = 15;

/// One block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Block<'a> {
    /// The beginning: nothing but what the format needs.
    Section,
    /// Interfaces are numbered in their order, from 0.
    Interface {
        /// How its frames begin.
        link: Link,
        /// Bytes of each packet at most.
        snap: u32,
        /// Its name, of visible ASCII characters.
        name: &'a str,
    },
    /// A packet.
    Packet(Packet<'a>),
    /// The end.
    Totals(Totals),
}

/// How a frame begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Link {
    /// With Ethernet addresses.
    Ethernet,
    /// With the IP header.
    Raw,
}

/// A packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Packet<'a> {
    /// Number of its interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The pod sent it; otherwise it came in.
    pub outbound: bool,
    /// How long it was.
    pub wire: u32,
    /// What is kept of it.
    pub bytes: &'a [u8],
}

/// What a whole capture saw.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Nanoseconds since 1970: when it ended.
    pub at: u64,
    /// Packets that the filter let through.
    pub seen: u64,
    /// Packets of these that nobody had room for.
    pub lost: u64,
}

impl Block<'_> {
    /// Bytes of the block that a packet of so many kept bytes takes.
    #[must_use]
    pub fn packet_size(kept: usize) -> usize {
        kept.next_multiple_of(4).saturating_add(PACKET_FRAME)
    }

    /// Appends the block. What is longer than it may be is cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Section => block(out, SECTION, |out| {
                word(out, BYTE_ORDER);
                word(out, VERSION);
                out.extend([0xff; 8]);
            }),
            Self::Interface { link, snap, name } => block(out, INTERFACE, |out| {
                word(out, link.number());
                word(out, *snap);
                let name = name.get(..MAX_INTERFACE_NAME).unwrap_or(name);
                option(out, NAME, name.as_bytes());
                option(out, RESOLUTION, &[NANOSECONDS]);
                option(out, END, &[]);
            }),
            Self::Packet(packet) => block(out, PACKET, |out| {
                let bytes = packet.bytes.get(..MAX_PACKET_BYTES).unwrap_or(packet.bytes);
                word(out, packet.interface);
                time(out, packet.at);
                word(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                word(out, packet.wire);
                padded(out, bytes);
                let flags: u32 = if packet.outbound { 2 } else { 1 };
                option(out, FLAGS, &flags.to_le_bytes());
                option(out, END, &[]);
            }),
            Self::Totals(totals) => block(out, STATISTICS, |out| {
                word(out, 0);
                time(out, totals.at);
                option(out, RECEIVED, &totals.seen.to_le_bytes());
                option(out, LOST, &totals.lost.to_le_bytes());
                option(out, END, &[]);
            }),
        }
    }
}

impl<'a> Block<'a> {
    /// Reads one whole block.
    ///
    /// # Errors
    /// [`WireError`] for whatever [`Self::write`] would not have written.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (kind, length) = (le32(&mut reader)?, le32(&mut reader)?);
        let inside = bytes.len().checked_sub(FRAME).ok_or(WireError::Truncated)?;
        let body = reader.take(inside).ok_or(WireError::Truncated)?;
        let is_framed = length as usize == bytes.len() && le32(&mut reader)? == length;
        if !is_framed {
            return Err(WireError::BadValue("length"));
        }
        let mut body = Reader::new(body);
        let block = match kind {
            SECTION => section(&mut body)?,
            INTERFACE => interface(&mut body)?,
            PACKET => packet(&mut body)?,
            STATISTICS => statistics(&mut body)?,
            _ => return Err(WireError::BadValue("kind of block")),
        };
        if body.is_empty() { Ok(block) } else { Err(WireError::Trailing) }
    }
}

impl Link {
    fn number(self) -> u32 {
        match self {
            Self::Ethernet => 1,
            Self::Raw => 101,
        }
    }
}

/// Looks at a file as it comes, whatever the cut points: whole blocks go on, and the first thing that
/// makes no sense ends it.
#[derive(Debug, Default)]
pub struct Checker {
    /// The beginning of a block that is not whole.
    held: Vec<u8>,
    begun: bool,
    interfaces: u32,
    packets: u64,
    totals: Option<Totals>,
}

impl Checker {
    /// Takes what came and appends what is whole to `out`. After an error nothing more is to be taken.
    ///
    /// # Errors
    /// [`WireError`] for what no proxy of ours writes, in that place.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        while !bytes.is_empty() {
            let wanted = match self.length()? {
                Some(length) => length,
                None => HEADER,
            };
            let missing = wanted.saturating_sub(self.held.len());
            let (taken, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            self.held.extend_from_slice(taken);
            bytes = rest;
            if self.length()? == Some(self.held.len()) {
                self.whole()?;
                out.append(&mut self.held);
            }
        }
        Ok(())
    }

    /// Packets that went on.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The end, if it came.
    #[must_use]
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    /// Length of the block that is held in part, once it is known.
    fn length(&self) -> Result<Option<usize>, WireError> {
        let Some((_, length)) = self.held.split_at_checked(4) else { return Ok(None) };
        let Some(length) = length.first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if (FRAME..=MAX_BLOCK).contains(&length) && length.is_multiple_of(4) {
            Ok(Some(length))
        } else {
            Err(WireError::BadValue("length"))
        }
    }

    fn whole(&mut self) -> Result<(), WireError> {
        let block = Block::read(&self.held)?;
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first != (block == Block::Section) || self.totals.is_some() {
            return Err(WireError::BadValue("order of blocks"));
        }
        match block {
            Block::Section => {}
            Block::Interface { .. } if self.interfaces < MAX_INTERFACES => {
                self.interfaces = self.interfaces.saturating_add(1);
            }
            Block::Packet(packet) if packet.interface < self.interfaces => {
                self.packets = self.packets.saturating_add(1);
            }
            Block::Totals(totals) if self.interfaces > 0 => self.totals = Some(totals),
            _ => return Err(WireError::BadValue("interface")),
        }
        Ok(())
    }
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    word(out, kind);
    word(out, 0);
    body(out);
    let length = out.len().saturating_sub(start).saturating_add(4);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    word(out, length);
    if let Some(place) = out.get_mut(start..).and_then(|block| block.get_mut(4..8)) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn word(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

/// The high word comes first.
fn time(out: &mut Vec<u8>, at: u64) {
    let [a, b, c, d, low @ ..] = at.to_be_bytes();
    word(out, u32::from_be_bytes([a, b, c, d]));
    word(out, u32::from_be_bytes(low));
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    padded(out, value);
}

fn section<'a>(body: &mut Reader<'_>) -> Result<Block<'a>, WireError> {
    let found = (le32(body)?, le32(body)?, body.array());
    if found == (BYTE_ORDER, VERSION, Some([0xff; 8])) {
        Ok(Block::Section)
    } else {
        Err(WireError::BadValue("section"))
    }
}

fn interface<'a>(body: &mut Reader<'a>) -> Result<Block<'a>, WireError> {
    let (number, snap) = (le32(body)?, le32(body)?);
    let link = [Link::Ethernet, Link::Raw]
        .into_iter()
        .find(|link| link.number() == number)
        .ok_or(WireError::BadValue("link"))?;
    let name = value(body, NAME)?;
    let is_name = name.len() <= MAX_INTERFACE_NAME && name.iter().all(u8::is_ascii_graphic);
    let name = std::str::from_utf8(name).map_err(|_text| WireError::Text)?;
    if !is_name || value(body, RESOLUTION)? != [NANOSECONDS] || !value(body, END)?.is_empty() {
        return Err(WireError::BadValue("interface"));
    }
    Ok(Block::Interface { link, snap, name })
}

fn packet<'a>(body: &mut Reader<'a>) -> Result<Block<'a>, WireError> {
    let (interface, at) = (le32(body)?, read_time(body)?);
    let (kept, wire) = (le32(body)? as usize, le32(body)?);
    if kept > MAX_PACKET_BYTES {
        return Err(WireError::TooMany {
            what: "bytes of a packet",
            count: kept,
            cap: MAX_PACKET_BYTES,
        });
    }
    let bytes = unpadded(body, kept)?;
    let outbound = match value(body, FLAGS)? {
        [1, 0, 0, 0] => false,
        [2, 0, 0, 0] => true,
        _ => return Err(WireError::BadValue("direction")),
    };
    if !value(body, END)?.is_empty() {
        return Err(WireError::BadValue("packet"));
    }
    Ok(Block::Packet(Packet { interface, at, outbound, wire, bytes }))
}

fn statistics<'a>(body: &mut Reader<'_>) -> Result<Block<'a>, WireError> {
    let interface = le32(body)?;
    let at = read_time(body)?;
    let (seen, lost) = (value(body, RECEIVED)?, value(body, LOST)?);
    let (Ok(seen), Ok(lost)) = (seen.try_into(), lost.try_into()) else {
        return Err(WireError::BadValue("totals"));
    };
    if interface != 0 || !value(body, END)?.is_empty() {
        return Err(WireError::BadValue("totals"));
    }
    let (seen, lost) = (u64::from_le_bytes(seen), u64::from_le_bytes(lost));
    Ok(Block::Totals(Totals { at, seen, lost }))
}

fn le16(reader: &mut Reader<'_>) -> Result<u16, WireError> {
    reader.le16().ok_or(WireError::Truncated)
}

fn le32(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    reader
        .array()
        .map(u32::from_le_bytes)
        .ok_or(WireError::Truncated)
}

fn read_time(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let (high, low) = (le32(reader)?, le32(reader)?);
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// The value of the option that must come next.
fn value<'a>(reader: &mut Reader<'a>, code: u16) -> Result<&'a [u8], WireError> {
    if le16(reader)? != code {
        return Err(WireError::BadValue("option"));
    }
    let length = le16(reader)?;
    unpadded(reader, length.into())
}

fn unpadded<'a>(reader: &mut Reader<'a>, length: usize) -> Result<&'a [u8], WireError> {
    let bytes = reader.take(length).ok_or(WireError::Truncated)?;
    let padding = length.next_multiple_of(4).saturating_sub(length);
    let padding = reader.take(padding).ok_or(WireError::Truncated)?;
    if padding.iter().all(|byte| *byte == 0) {
        Ok(bytes)
    } else {
        Err(WireError::BadValue("padding"))
    }
}

/// Kinds of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
/// The low byte comes first, in the writer's words.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// 1.0.
const VERSION: u32 = 1;
/// Options: the end of them, of an interface its name and what a unit of time is, of a packet its
/// direction, of the totals both counts.
const END: u16 = 0;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const RECEIVED: u16 = 4;
const LOST: u16 = 5;
/// A power of ten.
const NANOSECONDS: u8 = 9;
/// Kind, length, and length again.
const FRAME: usize = 12;
const HEADER: usize = 8;
/// Of a packet's block all but the packet.
const PACKET_FRAME: usize = FRAME + 20 + 12;
/// The longest block.
const MAX_BLOCK: usize = MAX_PACKET_BYTES.next_multiple_of(4) + PACKET_FRAME;
