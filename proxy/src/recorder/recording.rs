//! One capture: from the tap into the pipe.

use std::{collections::HashMap, io, time::Duration};

use outrider_capture::{Frame, Link, Tap};
use outrider_model::Direction;
use outrider_telemetry::unix_seconds;
use outrider_wire::pcapng::{self, Block, MAX_INTERFACES, Packet, Totals};
use tokio::{
    io::Interest,
    net::unix::pipe,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::budget::Budget;

/// Where a capture ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of each packet that are kept.
    pub(super) snap: u32,
    /// Packets.
    pub(super) packets: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// How long it takes.
    pub(super) time: Duration,
}

#[derive(Debug)]
pub(super) struct Recording {
    tap: Tap,
    pipe: pipe::Sender,
    sheet: Sheet,
    budget: Budget,
    end: Instant,
}

/// What is on its way into the pipe, and what may still come.
#[derive(Debug)]
struct Sheet {
    bounds: Bounds,
    waiting: Vec<u8>,
    /// Bytes of `waiting` that are in the pipe.
    written: usize,
    /// Numbers of interfaces in the file, by those of the kernel.
    interfaces: HashMap<u32, u32>,
    bytes: u64,
    packets: u64,
    /// Packets that have no place in the file.
    left_out: u64,
    full: bool,
}

impl Recording {
    pub(super) fn new(tap: Tap, pipe: pipe::Sender, bounds: Bounds) -> Self {
        let now = Instant::now();
        let budget = Budget::new(now);
        Self { tap, pipe, sheet: Sheet::new(bounds), budget, end: now + bounds.time }
    }

    /// Runs to the first of its bounds, or `stop`, or until nobody reads; says why. The pipe stays open.
    pub(super) async fn run(&mut self, stop: CancellationToken) -> (Totals, &'static str) {
        let why = self.record(&stop).await;
        if let Some(gone) = why.err() {
            return (self.totals(), gone);
        }
        self.last_look().await;
        let totals = self.totals();
        self.sheet.close(totals);
        let flushed = timeout(LAST_WRITE, async {
            while !self.sheet.is_written() {
                self.pipe.ready(Interest::WRITABLE).await?;
                self.sheet.write(&self.pipe)?;
            }
            io::Result::Ok(())
        });
        match (flushed.await, why) {
            (Ok(Ok(())), Ok(why)) => (totals, why),
            _ => (totals, "its end was not read"),
        }
    }

    async fn record(&mut self, stop: &CancellationToken) -> Result<&'static str, &'static str> {
        loop {
            if self.sheet.full {
                return Ok("full");
            }
            let Self { tap, pipe, sheet, budget, end } = self;
            let pause = budget.wait(Instant::now());
            let has_room = sheet.waiting.len() < MAX_WAITING && pause.is_none();
            let waits = !sheet.is_written();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok("stopped"),
                () = sleep_until(*end) => return Ok("over"),
                _ = pipe.ready(Interest::ERROR) => return Err("nobody reads it any more"),
                _ = pipe.ready(Interest::WRITABLE), if waits => {
                    if sheet.write(pipe).is_err() {
                        return Err("nobody reads it any more");
                    }
                }
                () = sleep_until(pause.unwrap_or(*end)), if pause.is_some() => {}
                ready = tap.ready(), if has_room => match ready {
                    Ok(()) => {
                        let before = (sheet.bytes, sheet.packets);
                        let _shown = tap.show(|frame| sheet.frame(&frame));
                        let packets = sheet.packets.saturating_sub(before.1);
                        budget.take(sheet.bytes.saturating_sub(before.0), packets);
                    }
                    Err(error) => {
                        warn!(%error, "a capture's tap");
                        return Ok("broken");
                    }
                },
            }
        }
    }

    /// What came before the end may be in a block that the kernel still holds.
    async fn last_look(&mut self) {
        let end = Instant::now() + LAST_LOOK;
        let Self { tap, sheet, .. } = self;
        while !sheet.full && sheet.waiting.len() < MAX_WAITING {
            match timeout_at(end, tap.ready()).await {
                Ok(Ok(())) => drop(tap.show(|frame| sheet.frame(&frame))),
                _ => return,
            }
        }
    }

    fn totals(&mut self) -> Totals {
        let lost = self.tap.counters().map_or(0, |counters| counters.lost);
        let lost = lost.saturating_add(self.sheet.left_out);
        let at = Duration::from_secs(unix_seconds()).as_nanos();
        Totals {
            at: u64::try_from(at).unwrap_or(u64::MAX),
            seen: self.sheet.packets.saturating_add(lost),
            lost,
        }
    }
}

impl Sheet {
    fn new(bounds: Bounds) -> Self {
        let mut sheet = Self {
            bounds,
            waiting: Vec::new(),
            written: 0,
            interfaces: HashMap::new(),
            bytes: RESERVED,
            packets: 0,
            left_out: 0,
            full: false,
        };
        sheet.put(&Block::Section);
        sheet
    }

    /// Appends a block, unless the file would become too long.
    fn put(&mut self, block: &Block<'_>) -> bool {
        let before = self.waiting.len();
        block.write(&mut self.waiting);
        let bytes = self
            .bytes
            .saturating_add((self.waiting.len() - before) as u64);
        if bytes > self.bounds.bytes {
            self.waiting.truncate(before);
            self.full = true;
            return false;
        }
        self.bytes = bytes;
        true
    }

    fn frame(&mut self, frame: &Frame<'_>) {
        if self.full {
            return;
        }
        let Some(interface) = self.interface(frame) else {
            self.left_out += u64::from(!self.full);
            return;
        };
        let bytes = frame.bytes;
        let packet = Packet {
            interface,
            at: u64::try_from(frame.at.as_nanos()).unwrap_or(u64::MAX),
            outbound: frame.direction == Direction::Outbound,
            wire: u32::try_from(frame.wire).unwrap_or(u32::MAX),
            bytes,
        };
        if self.put(&Block::Packet(packet)) {
            self.packets += 1;
            self.full = self.packets >= self.bounds.packets;
        }
    }

    /// The number of the frame's interface in the file, which describes it before its first packet.
    fn interface(&mut self, frame: &Frame<'_>) -> Option<u32> {
        if let Some(known) = self.interfaces.get(&frame.interface) {
            return Some(*known);
        }
        let link = match frame.link {
            Link::Ethernet => pcapng::Link::Ethernet,
            Link::Raw => pcapng::Link::Raw,
            Link::Other(_) => return None,
        };
        let number = u32::try_from(self.interfaces.len()).ok()?;
        if number >= MAX_INTERFACES {
            return None;
        }
        let name = name(frame.interface);
        let snap = self.bounds.snap;
        let described = self.put(&Block::Interface { link, snap, name: &name });
        described.then(|| {
            self.interfaces.insert(frame.interface, number);
            number
        })
    }

    /// Ends the file.
    fn close(&mut self, totals: Totals) {
        if self.interfaces.is_empty() {
            let link = pcapng::Link::Ethernet;
            Block::Interface { link, snap: self.bounds.snap, name: "none" }
                .write(&mut self.waiting);
        }
        Block::Totals(totals).write(&mut self.waiting);
    }

    /// Writes as much as the pipe takes.
    fn write(&mut self, pipe: &pipe::Sender) -> io::Result<()> {
        while let Some(rest) = self
            .waiting
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match pipe.try_write(rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(())
    }

    fn is_written(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// An interface's name, as far as a terminal can show it.
fn name(index: u32) -> String {
    let all = nix::net::if_::if_nameindex().ok();
    let known = all
        .iter()
        .flatten()
        .find(|interface| interface.index() == index);
    let name = known.map(|interface| interface.name().to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| format!("if{index}"));
    name.chars()
        .map(|letter| if letter.is_ascii_graphic() { letter } else { '?' })
        .collect()
}

/// Bytes that may wait for the pipe before no more are taken from the ring: some blocks of it.
const MAX_WAITING: usize = 512 * 1024;
/// Bytes of the file's end.
const RESERVED: u64 = 52 + 40;
/// How long the last frames are waited for: two time-outs of a tap's block, and the kernel's tick.
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How long a reader may take for the end.
const LAST_WRITE: Duration = Duration::from_secs(2);
