//! Feeds recorded flows to an inspector, cut at will: for tests, fuzzing and benchmarks.

use std::sync::Arc;

use outrider_model::Side;

use crate::{DpiConfig, Event, FlowInspector, Need};

/// What one side sent before the other one sent again.
pub type Segment = (Side, Vec<u8>);

/// Reads a recorded flow: a line a segment, `C` or `S`, a space, hexadecimal digits. Whatever is no
/// such line is left out.
#[must_use]
pub fn read(text: &str) -> Vec<Segment> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    let segment = |line: &str| {
        let (side, digits) = line.split_once(' ')?;
        let side = match side {
            "C" => Side::Client,
            "S" => Side::Server,
            _ => return None,
        };
        Some((
            side,
            digits
                .as_bytes()
                .chunks(2)
                .map(byte)
                .collect::<Option<_>>()?,
        ))
    };
    text.lines().filter_map(segment).collect()
}

/// Where to cut: bytes of the next chunk, and whether opaque bytes are skipped rather than fed.
pub trait Cuts {
    /// Size of the next chunk, at least 1.
    fn size(&mut self) -> usize;

    /// Whether what an inspector calls opaque is skipped this time.
    fn skips(&mut self) -> bool;
}

/// Chunks of one size; opaque bytes are always, or never, skipped.
#[derive(Clone, Copy, Debug)]
pub struct Even {
    /// Bytes of a chunk.
    pub size: usize,
    /// Whether to skip.
    pub skip: bool,
}

impl Cuts for Even {
    fn size(&mut self) -> usize {
        self.size
    }

    fn skips(&mut self) -> bool {
        self.skip
    }
}

/// Cuts that bytes from a generator decide.
#[derive(Clone, Debug)]
pub struct Drawn<'a> {
    draws: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl<'a> Drawn<'a> {
    /// Draws from these bytes, again and again.
    #[must_use]
    pub fn new(draws: &'a [u8]) -> Self {
        Self { draws: draws.iter().cycle() }
    }
}

impl Cuts for Drawn<'_> {
    fn size(&mut self) -> usize {
        self.draws
            .next()
            .map_or(1, |draw| usize::from(*draw).max(1))
    }

    fn skips(&mut self) -> bool {
        self.draws.next().is_some_and(|draw| draw & 1 == 1)
    }
}

/// What a replay saw.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// All events in order.
    pub events: Vec<Event>,
    /// Most bytes held at any time.
    pub held: usize,
    /// Whether interest was over before the flow was.
    pub over: bool,
}

/// Replays a flow; both sides end after the last segment if `ends`.
pub fn replay(
    config: &Arc<DpiConfig>,
    port: u16,
    flow: &[Segment],
    cuts: &mut dyn Cuts,
    ends: bool,
) -> Seen {
    let mut inspector = FlowInspector::new(Arc::clone(config), port);
    let mut seen = Seen::default();
    let mut needs = [Need::Bytes; 2];
    let index = |side| usize::from(side == Side::Server);
    for (side, bytes) in flow {
        let mut rest: &[u8] = bytes;
        while !rest.is_empty() {
            let need = needs.get(index(*side)).copied().unwrap_or(Need::Nothing);
            let opaque = match need {
                Need::Bytes => 0,
                Need::Nothing => usize::MAX,
                Need::Skip(_) if !cuts.skips() => 0,
                Need::Skip(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            };
            let size = cuts.size().max(1).min(rest.len());
            let size = if opaque > 0 { size.min(opaque) } else { size };
            let (chunk, later) = rest.split_at(size);
            rest = later;
            if need == Need::Nothing {
                continue;
            }
            let interest = if opaque > 0 {
                inspector.skip(*side, size as u64, &mut seen.events)
            } else {
                inspector.feed(*side, chunk, &mut seen.events)
            };
            needs = [interest.client, interest.server];
            seen.held = seen.held.max(inspector.held());
        }
    }
    seen.over = needs == [Need::Nothing; 2];
    if ends {
        for side in [Side::Client, Side::Server] {
            inspector.end(side, &mut seen.events);
        }
    }
    seen
}
