//! A capture file, record by record: pcap or pcapng, whichever it is.
//!
//! One record is in memory at a time. Lengths come from the file and are capped before anything is
//! allocated for them.

use std::{
    fmt,
    io::{self, Read},
    time::Duration,
};

use super::{pcap::Pcap, pcapng::PcapNg};

/// Longest frame of a record: as much as tcpdump takes.
pub(super) const MAX_FRAME: usize = 256 << 10;

/// One frame of a capture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Record<'a> {
    pub(super) link: u32,
    pub(super) at: Duration,
    /// Bytes of the frame on the wire.
    pub(super) wire: usize,
    pub(super) bytes: &'a [u8],
}

/// Why a capture cannot be read, or not to its end.
#[derive(Debug)]
pub(super) enum CaptureError {
    /// It never was one, and what it is instead.
    NotCapture(&'static str),
    /// It ends inside a record.
    Cut {
        /// Where the record begins.
        at: u64,
    },
    /// A record makes no sense.
    Broken {
        /// Where the record begins.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file could not be read.
    Input(io::Error),
}

impl CaptureError {
    /// What an error means while the header is read: a file that is cut there is no capture.
    pub(super) fn in_header(self, what: &'static str) -> Self {
        match self {
            Self::Input(error) => Self::Input(error),
            _ => Self::NotCapture(what),
        }
    }
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Input(error)
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCapture(what) => write!(f, "not a capture that can be read: {what}"),
            Self::Cut { at } => write!(f, "it ends inside a record that begins at byte {at}"),
            Self::Broken { at, what } => write!(
                f,
                "the record at byte {at} makes no sense ({what}); what is before it was read. \
                 Capture again, or let editcap write the part that can be read to a new file"
            ),
            Self::Input(error) => write!(f, "cannot read: {error}"),
        }
    }
}

/// Bytes that come one after another, and how many came.
#[derive(Debug)]
pub(super) struct Source<R> {
    input: R,
    position: u64,
    /// Where the current record begins.
    record: u64,
}

impl<R: Read> Source<R> {
    /// A record begins here.
    pub(super) fn begin(&mut self) {
        self.record = self.position;
    }

    /// The next bytes; a file that ends in them is cut.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next bytes, or nothing at the end of the file.
    pub(super) fn array_or_end<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CaptureError> {
        let mut bytes = [0; N];
        match self.read(&mut bytes)? {
            0 => Ok(None),
            read if read < N => Err(CaptureError::Cut { at: self.record }),
            _ => Ok(Some(bytes)),
        }
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CaptureError> {
        if self.read(bytes)? < bytes.len() {
            return Err(CaptureError::Cut { at: self.record });
        }
        Ok(())
    }

    pub(super) fn pass(&mut self, count: u64) -> Result<(), CaptureError> {
        let passed = io::copy(&mut (&mut self.input).take(count), &mut io::sink())?;
        self.position = self.position.saturating_add(passed);
        if passed < count {
            return Err(CaptureError::Cut { at: self.record });
        }
        Ok(())
    }

    pub(super) fn broken(&self, what: &'static str) -> CaptureError {
        CaptureError::Broken { at: self.record, what }
    }

    /// Reads as much as there is.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position = self.position.saturating_add(filled as u64);
        Ok(filled)
    }
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// A capture file of either kind.
#[derive(Debug)]
pub(super) struct Capture<R> {
    source: Source<R>,
    format: Format,
}

impl<R: Read> Capture<R> {
    /// Reads the beginning, which says what it is.
    pub(super) fn new(input: R) -> Result<Self, CaptureError> {
        let mut source = Source { input, position: 0, record: 0 };
        let Some(magic) = source
            .array_or_end()
            .map_err(|error| error.in_header(SHORT))?
        else {
            return Err(CaptureError::NotCapture("it is empty"));
        };
        let format = match magic {
            [0x0a, 0x0d, 0x0d, 0x0a] => Format::PcapNg(PcapNg::open(&mut source)?),
            [0x1f, 0x8b, ..] => {
                return Err(CaptureError::NotCapture(
                    "it is compressed: gunzip -c FILE | outrider inspect -",
                ));
            }
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(CaptureError::NotCapture(
                    "it is compressed: zstdcat FILE | outrider inspect -",
                ));
            }
            magic => Format::Pcap(Pcap::open(magic, &mut source)?),
        };
        Ok(Self { source, format })
    }

    /// The next frame; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        self.source.begin();
        match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.source),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.source),
        }
    }

    /// Bytes that were read so far.
    pub(super) fn position(&self) -> u64 {
        self.source.position
    }
}

const SHORT: &str = "it is shorter than a capture's first word";

#[cfg(test)]
mod tests;
