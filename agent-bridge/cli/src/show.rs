//! What each answer looks like.

mod rows;
mod status;

use std::{
    io::{self, BufWriter, Stdout, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use outrider_api::{Capture, Explanation, ModeReply, Status, Workload};
use serde::Serialize;

use crate::{
    client::Failure,
    table::{self, Column},
};

/// One element of a list: its columns and its cells.
pub(crate) trait Row: Serialize {
    /// Said instead of an empty table.
    const NOTHING: &'static str;
    /// The header.
    const COLUMNS: &'static [Column];
    /// One cell a column.
    fn cells(&self, now: u64) -> Vec<String>;
}

/// Standard output, as a table or as JSON.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
    /// Widths of the columns so far, of a table that goes on.
    widths: Vec<usize>,
}

type Printed = Result<(), Failure>;

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()), widths: Vec::new() }
    }

    /// A list: one object a line, or a table.
    pub(crate) fn list<T: Row>(&mut self, rows: &[T]) -> Printed {
        if self.json {
            for row in rows {
                self.object(row)?;
            }
        } else if rows.is_empty() {
            writeln!(self.out, "{}", T::NOTHING)?;
        } else {
            let now = now();
            table::print(&mut self.out, T::COLUMNS, rows.iter().map(|row| row.cells(now)))?;
        }
        Ok(self.out.flush()?)
    }

    /// The next row of a list that goes on; the first one has the header above it.
    pub(crate) fn next<T: Row>(&mut self, row: &T) -> Printed {
        if self.json {
            return self.object(row);
        }
        table::next(&mut self.out, T::COLUMNS, &mut self.widths, &row.cells(now()))?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A capture that is over, for programs.
    pub(crate) fn capture(&mut self, capture: &Capture) -> Printed {
        self.object(capture)?;
        Ok(self.out.flush()?)
    }

    /// Says what was done.
    pub(crate) fn say(&mut self, text: &str) -> Printed {
        if self.json {
            return self.object(&serde_json::json!({ "done": text }));
        }
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// Says something that is no part of the output.
    pub(crate) fn note(&mut self, text: &str) -> Printed {
        Ok(writeln!(io::stderr(), "outrider: {text}")?)
    }

    pub(crate) fn status(&mut self, status: &Status) -> Printed {
        if self.json {
            return self.object(status);
        }
        status::print(&mut self.out, status, now())?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn mode(&mut self, workload: &Workload) -> Printed {
        if self.json {
            let Workload { name, group, mode, .. } = workload;
            return self
                .object(&serde_json::json!({ "workload": name, "group": group, "mode": mode }));
        }
        writeln!(self.out, "{}", workload.mode)?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn mode_set(&mut self, reply: &ModeReply) -> Printed {
        if self.json {
            return self.object(reply);
        }
        writeln!(
            self.out,
            "{} ({}) is in {}: pushed to {}{}",
            reply.workload,
            reply.group,
            reply.mode,
            count(reply.pushed, "connected proxy", "connected proxies"),
            match reply.absent {
                0 => String::new(),
                absent => format!(", {absent} not connected"),
            }
        )?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn explanation(&mut self, answer: &Explanation) -> Printed {
        if self.json {
            return self.object(answer);
        }
        let Explanation { client, server, port, app, verdict, .. } = answer;
        writeln!(self.out, "{client} -> {server} port {port} ({app}): {verdict}")?;
        if let Some(service) = &answer.service {
            writeln!(self.out, "  through {service}")?;
        }
        for judged in &answer.judged {
            writeln!(
                self.out,
                "  at {} ({}, {}): {}, rule {}: {}",
                judged.at, judged.direction, judged.mode, judged.action, judged.rule, judged.reason
            )?;
        }
        if !answer.to_allow.is_empty() {
            writeln!(self.out, "to allow it: {}", answer.to_allow)?;
        }
        Ok(self.out.flush()?)
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Printed {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// An object for programs.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Printed {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        writeln!(self.out)?;
        Ok(self.out.flush()?)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
