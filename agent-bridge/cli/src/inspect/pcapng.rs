//! The newer format: blocks, in sections of one byte order, with interfaces of their own.

use std::{io::Read, time::Duration};

use super::{
    capture::{CaptureError, MAX_FRAME, Record, Source},
    pcap::word,
};

/// Interfaces of one section.
pub(super) const MAX_INTERFACES: usize = 4_096;
/// Longest block whose contents matter: a frame, and options.
const MAX_BLOCK: u32 = 1 << 20;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

/// Where frames were captured.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    snap: u32,
    /// Units of time in a second.
    units: u64,
    /// Seconds that are added to each time.
    offset: i64,
}

/// What is known of the current section.
#[derive(Debug)]
pub(super) struct PcapNg {
    big_endian: bool,
    interfaces: Vec<Interface>,
    block: Vec<u8>,
    last: Duration,
}

/// A block's contents.
struct Fields<'a> {
    rest: &'a [u8],
    big_endian: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn word(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(word(bytes, self.big_endian))
    }

    fn half(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }
}

impl PcapNg {
    /// Reads the first section's header, behind its type.
    pub(super) fn open<R: Read>(source: &mut Source<R>) -> Result<Self, CaptureError> {
        let mut opened = Self {
            big_endian: false,
            interfaces: Vec::new(),
            block: Vec::new(),
            last: Duration::ZERO,
        };
        opened
            .section(source)
            .map_err(|error| error.in_header("it ends in the header of a pcapng file"))?;
        Ok(opened)
    }

    /// The next frame of any interface.
    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Record<'_>>, CaptureError> {
        loop {
            source.begin();
            let Some(kind) = source.array_or_end()? else { return Ok(None) };
            let kind = word(kind, self.big_endian);
            match kind {
                SECTION => self.section(source)?,
                INTERFACE => {
                    self.read(source)?;
                    self.interface(source)?;
                }
                PACKET | SIMPLE_PACKET | OLD_PACKET => {
                    self.read(source)?;
                    let found = self.packet(kind);
                    let (interface, at, wire, captured) =
                        found.ok_or_else(|| source.broken("a packet block without a packet"))?;
                    if captured > MAX_FRAME {
                        return Err(source.broken("a frame longer than 256 KiB"));
                    }
                    self.last = at;
                    let start = head(kind);
                    let bytes = start
                        .checked_add(captured)
                        .and_then(|end| self.block.get(start..end));
                    let bytes =
                        bytes.ok_or_else(|| source.broken("a frame longer than its block"))?;
                    return Ok(Some(Record { link: interface.link, at, wire, bytes }));
                }
                _ => self.pass(source)?,
            }
        }
    }

    /// Reads a section's header, behind its type.
    fn section<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let length: [u8; 4] = source.array()?;
        self.big_endian = match source.array()? {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(source.broken("a section of no byte order")),
        };
        self.interfaces.clear();
        let length = word(length, self.big_endian);
        let rest = length.checked_sub(12).filter(|_| length.is_multiple_of(4));
        source.pass(
            rest.ok_or_else(|| source.broken("length of a block"))?
                .into(),
        )
    }

    /// The length of a block's contents, of which nothing was read but its type.
    fn length<R: Read>(&self, source: &mut Source<R>) -> Result<u32, CaptureError> {
        let length = word(source.array()?, self.big_endian);
        let inside = length.checked_sub(12).filter(|_| length.is_multiple_of(4));
        inside.ok_or_else(|| source.broken("length of a block"))
    }

    fn pass<R: Read>(&self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let length = self.length(source)?;
        source.pass(length.into())?;
        self.trailer(source, length)
    }

    fn read<R: Read>(&mut self, source: &mut Source<R>) -> Result<(), CaptureError> {
        let length = self.length(source)?;
        if length > MAX_BLOCK {
            return Err(source.broken("a block longer than 1 MiB"));
        }
        self.block.resize(length as usize, 0);
        source.fill(&mut self.block)?;
        self.trailer(source, length)
    }

    /// The length again: if it is another one, what was read is no block.
    fn trailer<R: Read>(&self, source: &mut Source<R>, length: u32) -> Result<(), CaptureError> {
        let again = word(source.array()?, self.big_endian);
        if again == length.saturating_add(12) {
            return Ok(());
        }
        Err(source.broken("a block with two lengths"))
    }

    fn interface<R: Read>(&mut self, source: &Source<R>) -> Result<(), CaptureError> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(source.broken("more interfaces than 4096"));
        }
        let fields = Fields { rest: &self.block, big_endian: self.big_endian };
        let interface = read_interface(fields);
        let interface =
            interface.ok_or_else(|| source.broken("an interface that is not described"))?;
        self.interfaces.push(interface);
        Ok(())
    }

    /// Interface, time, length on the wire and length in the file of the packet in the block.
    fn packet(&self, kind: u32) -> Option<(Interface, Duration, usize, usize)> {
        let mut fields = Fields { rest: &self.block, big_endian: self.big_endian };
        if kind == SIMPLE_PACKET {
            let interface = *self.interfaces.first()?;
            let wire = fields.word()?;
            let snap = if interface.snap == 0 { u32::MAX } else { interface.snap };
            let captured = (wire.min(snap) as usize).min(fields.rest.len());
            return Some((interface, self.last, wire as usize, captured));
        }
        let index = if kind == OLD_PACKET {
            let index = fields.half()?;
            fields.half()?;
            index.into()
        } else {
            fields.word()?
        };
        let interface = *self.interfaces.get(index as usize)?;
        let (high, low) = (fields.word()?, fields.word()?);
        let at = interface.time(u64::from(high).rotate_left(32) | u64::from(low));
        let (captured, wire) = (fields.word()?, fields.word()?);
        Some((interface, at, wire as usize, captured as usize))
    }
}

impl Interface {
    /// A time in the interface's units.
    fn time(self, count: u64) -> Duration {
        let seconds = count / self.units;
        let rest = u128::from(count % self.units).saturating_mul(1_000_000_000);
        let nanos = u64::try_from(rest / u128::from(self.units)).unwrap_or_default();
        Duration::from_secs(seconds.saturating_add_signed(self.offset))
            .saturating_add(Duration::from_nanos(nanos))
    }
}

/// Bytes of a packet block before its frame.
fn head(kind: u32) -> usize {
    if kind == SIMPLE_PACKET { 4 } else { 20 }
}

fn read_interface(mut fields: Fields<'_>) -> Option<Interface> {
    let link = fields.half()?.into();
    fields.half()?;
    let snap = fields.word()?;
    let mut interface = Interface { link, snap, units: 1_000_000, offset: 0 };
    // Options may be left out, and end without saying so.
    while let (Some(code), Some(length)) = (fields.half(), fields.half())
        && code != 0
    {
        let length = usize::from(length);
        let value = fields.take(length.next_multiple_of(4))?.get(..length)?;
        match (code, value) {
            (9, [resolution, ..]) => interface.units = units(*resolution)?,
            (14, value) => {
                let bytes = value.try_into().ok()?;
                interface.offset = if fields.big_endian {
                    i64::from_be_bytes(bytes)
                } else {
                    i64::from_le_bytes(bytes)
                };
            }
            _ => {}
        }
    }
    Some(interface)
}

/// Units in a second: a power of ten, or with the highest bit of two.
fn units(resolution: u8) -> Option<u64> {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(power) } else { 2_u64.checked_pow(power) }
}
