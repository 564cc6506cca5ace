//! `outrider inspect FILE`: the proxy's own engine over a capture file.

mod capture;
mod file;
mod flows;
mod pcap;
mod pcapng;
mod progress;
mod row;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::Path,
};

use capture::{Capture, CaptureError};
use flows::Flows;
use outrider_packet::{Engine, Frame, Limits, LinkType};
use progress::Progress;
use row::FlowRow;

use crate::{client::Failure, show::Output};

/// Rows that are kept to be shown in the order in which their flows began. A capture with more
/// flows is shown in parts.
const MAX_ROWS: usize = 10_000;

/// Reads a capture and shows its flows.
pub(crate) fn run(path: &Path, json: bool) -> Result<(), Failure> {
    let (input, size) = file::open(path).map_err(|error| unreadable(path, &error))?;
    let mut progress = Progress::new(size);
    let capture = Capture::new(input).map_err(|error| unreadable(path, &error))?;
    let mut report = Report { output: Output::new(json), rows: Vec::new(), shown: false };
    let totals = read(capture, &mut progress, &mut report)?;
    progress.clear();
    report.finish()?;
    totals.say(path, json)?;
    match totals.stopped {
        Some(error @ (CaptureError::Broken { .. } | CaptureError::Input(_))) => {
            Err(unreadable(path, &error))
        }
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, error: &CaptureError) -> Failure {
    Failure::Refused(format!("{}: {error}", path.display()))
}

/// Rows on their way to the output.
struct Report {
    output: Output,
    rows: Vec<FlowRow>,
    shown: bool,
}

impl Report {
    fn add(&mut self, rows: &mut Vec<FlowRow>) -> Result<(), Failure> {
        self.rows.append(rows);
        if self.rows.len() < MAX_ROWS { Ok(()) } else { self.show() }
    }

    fn show(&mut self) -> Result<(), Failure> {
        self.rows.sort_by_key(|row| row.flow);
        self.output.list(&self.rows)?;
        self.rows.clear();
        self.shown = true;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.rows.is_empty() && self.shown { Ok(()) } else { self.show() }
    }
}

/// What was read, and what could not be.
struct Totals {
    counters: outrider_packet::Counters,
    /// Findings that belong to no flow.
    loose: u64,
    /// Frames of link types that nobody here reads.
    unsupported: BTreeMap<u32, u64>,
    /// Why reading stopped before the end.
    stopped: Option<CaptureError>,
}

fn read<R: Read>(
    mut capture: Capture<R>,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<Totals, Failure> {
    let mut engine = Engine::new(Limits::for_files());
    let mut flows = Flows::default();
    let mut unsupported = BTreeMap::new();
    let stopped = loop {
        let record = match capture.next() {
            Ok(Some(record)) => record,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        if let Some(link) = LinkType::from_number(record.link) {
            let (at, wire) = (record.at, record.wire);
            let frame = Frame { link, at, bytes: record.bytes, wire };
            engine.feed(&frame, &mut |event| flows.hear(event));
        } else {
            let count = unsupported.entry(record.link).or_insert(0_u64);
            *count = count.saturating_add(1);
        }
        progress.show(capture.position());
        report.add(&mut flows.rows)?;
    };
    engine.finish(&mut |event| flows.hear(event));
    report.add(&mut flows.rows)?;
    Ok(Totals { counters: engine.counters(), loose: flows.loose, unsupported, stopped })
}

impl Totals {
    /// Says on standard error what the flows do not show; for people, also how much there was.
    fn say(&self, path: &Path, json: bool) -> io::Result<()> {
        let mut err = io::stderr().lock();
        let counters = &self.counters;
        if !json {
            writeln!(err, "{} frames, {}", counters.frames, crate::human::bytes(counters.bytes))?;
        }
        for (count, what) in [
            (counters.not_ip, "frames carry no IP"),
            (self.loose, "frames cannot be read: their headers contradict themselves"),
            (counters.cut, "frames were captured too short to say anything (tcpdump -s 0)"),
            (counters.fragments_given_up, "packets lack some of their fragments"),
            (counters.no_flow, "resets and ends belong to no connection"),
            (counters.stray, "TCP segments are outside their connection's window"),
            (counters.evicted, "flows were ended early, because too many were open at once"),
        ] {
            if count > 0 {
                writeln!(err, "outrider: {count} {what}")?;
            }
        }
        for (link, count) in &self.unsupported {
            writeln!(
                err,
                "outrider: {count} frames of link type {link} were passed over: Ethernet, Linux \
                 cooked, raw IP and loopback can be read"
            )?;
        }
        if let Some(CaptureError::Cut { at }) = self.stopped {
            let path = path.display();
            writeln!(
                err,
                "outrider: {path}: the file ends inside a record that begins at byte {at}; what is \
                 before it was read"
            )?;
        }
        Ok(())
    }
}
