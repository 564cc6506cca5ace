//! Where a capture goes, and what people see meanwhile.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use outrider_api::Capture;
use tokio::time::Instant;

use crate::{client::Failure, human, show::Output};

/// Where a capture is to go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// A file, which is made once there is something to write.
    File(PathBuf),
    /// Standard output.
    Out,
}

impl Target {
    /// Standard output only if it is asked for, or leads to a program or a file.
    pub(super) fn choose(wanted: Option<&Path>) -> Result<Self, Failure> {
        match wanted {
            Some(path) if path != Path::new("-") => Ok(Self::File(path.to_owned())),
            Some(_) => Ok(Self::Out),
            None if io::stdout().is_terminal() => Err(Failure::Usage(
                "a capture does not belong on a terminal: name a file with -w FILE, or read it with \
                 `| outrider inspect -` or `| tcpdump -r -`"
                    .into(),
            )),
            None => Ok(Self::Out),
        }
    }

    pub(super) fn open(&self) -> Result<Sink, Failure> {
        let out: Box<dyn Write> = match self {
            Self::Out => Box::new(io::stdout()),
            Self::File(path) => Box::new(File::create(path).map_err(|error| {
                Failure::Refused(format!("cannot write {}: {error}", path.display()))
            })?),
        };
        Ok(Sink(out))
    }

    /// Says what the capture was, where it is in nobody's way.
    pub(super) fn summary(&self, output: &mut Output, capture: &Capture) -> Result<(), Failure> {
        if let Self::File(_) = self
            && output.is_json()
        {
            return output.capture(capture);
        }
        let seconds = capture
            .ended
            .unwrap_or_default()
            .saturating_sub(capture.started);
        let lost = match capture.lost {
            0 => String::new(),
            lost => {
                format!("; {lost} more came too fast: narrow them by --filter or --snap-length")
            }
        };
        let said = format!(
            "{} packets of {}, {} in {}{lost}",
            capture.packets,
            capture.workload,
            human::bytes(capture.bytes),
            human::seconds(seconds)
        );
        Ok(writeln!(io::stderr(), "outrider: {said}")?)
    }
}

/// What takes a capture.
pub(super) struct Sink(Box<dyn Write>);

impl Sink {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes)?;
        // Whoever reads a live capture wants to see it live.
        Ok(self.0.flush()?)
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

/// A line on standard error that says how far it is, if somebody looks.
pub(super) struct Progress {
    on: bool,
    begun: Instant,
    bytes: u64,
    width: usize,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { on: io::stderr().is_terminal(), begun: Instant::now(), bytes: 0, width: 0 }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn show(&mut self) {
        if !self.on {
            return;
        }
        let (bytes, time) = (human::bytes(self.bytes), self.begun.elapsed().as_secs());
        let line = format!("capturing: {bytes}, {}; Ctrl-C ends it", human::seconds(time));
        self.width = self.width.max(line.len());
        drop(write!(io::stderr(), "\r{line:<width$}", width = self.width));
    }

    pub(super) fn clear(&mut self) {
        if self.on && self.width > 0 {
            drop(write!(io::stderr(), "\r{:width$}\r", "", width = self.width));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_standard_output_and_a_name_a_file() {
        assert_eq!(Target::choose(Some(Path::new("-"))).unwrap(), Target::Out);
        let file = Target::choose(Some(Path::new("a.pcapng"))).unwrap();
        assert_eq!(file, Target::File("a.pcapng".into()));
    }
}
