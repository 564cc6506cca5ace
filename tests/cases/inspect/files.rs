//! Capture files, read and written for the tests.

use std::fmt::Write as _;

/// One frame of a capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) seconds: u32,
    pub(crate) micros: u32,
    pub(crate) wire: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A capture in memory.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) link: u32,
    pub(crate) records: Vec<Record>,
}

/// How to write one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// The older format: big endian or not, nanoseconds or not.
    Pcap { big: bool, nanos: bool },
    /// The newer one; `resolution` is the option's byte, 6 where it is left out.
    PcapNg { big: bool, resolution: u8 },
}

impl File {
    /// Frames a millisecond apart.
    pub(crate) fn of(link: u32, frames: Vec<Vec<u8>>) -> Self {
        let record = |(at, bytes): (u32, Vec<u8>)| Record {
            seconds: 1_000 + at / 1_000,
            micros: at % 1_000 * 1_000,
            wire: u32::try_from(bytes.len()).unwrap(),
            bytes,
        };
        Self { link, records: (0..).zip(frames).map(record).collect() }
    }

    /// Reads what tcpdump wrote here: little endian, microseconds.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), 0xa1b2_c3d4);
        let mut records = Vec::new();
        let mut at = 24;
        while at < bytes.len() {
            let end = at + 16 + word(at + 8) as usize;
            records.push(Record {
                seconds: word(at),
                micros: word(at + 4),
                wire: word(at + 12),
                bytes: bytes[at + 16..end].to_vec(),
            });
            at = end;
        }
        Self { link: word(20), records }
    }

    pub(crate) fn write(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Pcap { big, nanos } => self.pcap(big, nanos),
            Form::PcapNg { big, resolution } => self.pcapng(big, resolution),
        }
    }

    /// As tcpdump does.
    pub(crate) fn plain(&self) -> Vec<u8> {
        self.write(Form::Pcap { big: false, nanos: false })
    }

    fn pcap(&self, big: bool, nanos: bool) -> Vec<u8> {
        let mut out = Words { big, bytes: Vec::new() };
        out.word(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
        out.half(2);
        out.half(4);
        for word in [0, 0, 262_144, self.link] {
            out.word(word);
        }
        for record in &self.records {
            let part = if nanos { record.micros * 1_000 } else { record.micros };
            let captured = u32::try_from(record.bytes.len()).unwrap();
            for word in [record.seconds, part, captured, record.wire] {
                out.word(word);
            }
            out.bytes.extend(&record.bytes);
        }
        out.bytes
    }

    fn pcapng(&self, big: bool, resolution: u8) -> Vec<u8> {
        let mut out = Words { big, bytes: Vec::new() };
        out.block(0x0a0d_0d0a, |out| {
            out.word(0x1a2b_3c4d);
            out.half(1);
            out.half(0);
            out.word(u32::MAX);
            out.word(u32::MAX);
        });
        out.block(1, |out| {
            out.half(u16::try_from(self.link).unwrap());
            out.half(0);
            out.word(0);
            if resolution != 6 {
                out.half(9);
                out.half(1);
                out.bytes.extend([resolution, 0, 0, 0]);
                out.half(0);
                out.half(0);
            }
        });
        // A block that nobody here knows.
        out.block(0x0bad, |out| out.word(7));
        for record in &self.records {
            out.block(6, |out| {
                let units = record.micros_in(resolution);
                let captured = u32::try_from(record.bytes.len()).unwrap();
                let (high, low) = (units >> 32, units & 0xffff_ffff);
                for word in [
                    0,
                    u32::try_from(high).unwrap(),
                    u32::try_from(low).unwrap(),
                    captured,
                    record.wire,
                ] {
                    out.word(word);
                }
                out.bytes.extend(&record.bytes);
            });
        }
        out.bytes
    }
}

impl Record {
    /// The time in units of an interface's resolution.
    fn micros_in(&self, resolution: u8) -> u64 {
        let micros = u64::from(self.seconds) * 1_000_000 + u64::from(self.micros);
        match resolution {
            9 => micros * 1_000,
            0x94 => (u128::from(micros) * (1 << 20) / 1_000_000)
                .try_into()
                .unwrap(),
            _ => micros,
        }
    }
}

struct Words {
    big: bool,
    bytes: Vec<u8>,
}

impl Words {
    fn half(&mut self, value: u16) {
        self.bytes
            .extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn word(&mut self, value: u32) {
        self.bytes
            .extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Self)) {
        let mut inside = Self { big: self.big, bytes: Vec::new() };
        fill(&mut inside);
        inside
            .bytes
            .resize(inside.bytes.len().next_multiple_of(4), 0);
        let length = u32::try_from(inside.bytes.len()).unwrap() + 12;
        self.word(kind);
        self.word(length);
        self.bytes.extend(inside.bytes);
        self.word(length);
    }
}

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// Bytes as they may be pasted from a failed test.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
