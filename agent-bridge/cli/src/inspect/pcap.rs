//! The older format: one header, one link type, records.

use std::{io::Read, time::Duration};

use outrider_packet::LinkType;

use super::capture::{CaptureError, MAX_FRAME, Record, Source};

/// What a file's header says about all its records.
#[derive(Debug)]
pub(super) struct Pcap {
    big_endian: bool,
    /// Nanoseconds in a unit of the second time word.
    unit: u32,
    link: u32,
    /// Bytes between a record's header and its frame.
    extra: u64,
    frame: Vec<u8>,
}

impl Pcap {
    /// Reads the rest of the header.
    pub(super) fn open<R: Read>(
        magic: [u8; 4],
        source: &mut Source<R>,
    ) -> Result<Self, CaptureError> {
        let (big_endian, unit, extra) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000, 0),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000, 0),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1, 0),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1, 0),
            // A variant of old Linux systems: index, protocol and type of the device.
            [0x34, 0xcd, 0xb2, 0xa1] => (false, 1000, 8),
            [0xa1, 0xb2, 0xcd, 0x34] => (true, 1000, 8),
            _ => {
                return Err(CaptureError::NotCapture(
                    "it begins like neither pcap nor pcapng; write one with tcpdump -w FILE",
                ));
            }
        };
        let header: [u8; 20] = source
            .array()
            .map_err(|error| error.in_header("it ends in the header of a pcap file"))?;
        let [.., a, b, c, d] = header;
        // The upper bits say how long the frames' checksums are.
        let link = word([a, b, c, d], big_endian) & 0xffff;
        if LinkType::from_number(link).is_none() {
            return Err(CaptureError::NotCapture(unsupported(link)));
        }
        Ok(Self { big_endian, unit, link, extra, frame: Vec::new() })
    }

    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Record<'_>>, CaptureError> {
        let Some(header) = source.array_or_end::<16>()? else { return Ok(None) };
        let (words, _) = header.as_chunks::<4>();
        let mut words = words.iter().map(|bytes| word(*bytes, self.big_endian));
        let mut next = || words.next().unwrap_or_default();
        let (seconds, part, captured, wire) = (next(), next(), next(), next());
        let captured = captured as usize;
        if captured > MAX_FRAME {
            return Err(source.broken("a frame longer than 256 KiB"));
        }
        source.pass(self.extra)?;
        self.frame.resize(captured, 0);
        source.fill(&mut self.frame)?;
        let nanos = u64::from(part).saturating_mul(self.unit.into());
        let at = Duration::from_secs(seconds.into()).saturating_add(Duration::from_nanos(nanos));
        Ok(Some(Record { link: self.link, at, wire: wire as usize, bytes: &self.frame }))
    }
}

pub(super) fn word(bytes: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

fn unsupported(link: u32) -> &'static str {
    match link {
        105 | 119 | 127 | 163 | 192 => {
            "its frames are of a radio link; Ethernet, Linux cooked, raw IP and loopback can be read"
        }
        189 | 220 | 249 => {
            "its frames are of USB; Ethernet, Linux cooked, raw IP and loopback can be read"
        }
        _ => {
            "its link type is unknown here; Ethernet, Linux cooked, raw IP and loopback can be read"
        }
    }
}
