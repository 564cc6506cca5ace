//! Telling: sections, commands with what they print, statements that hold or do not.

use std::{
    fmt::{Debug, Display},
    io::{IsTerminal as _, Write as _, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use tokio::time::Instant;

/// How long the demo may take, building apart.
const LIMIT: Duration = Duration::from_secs(90);
/// Lines of a command's output that are shown.
const SHOWN: usize = 24;

/// What has been told so far.
pub(crate) struct Story {
    started: Instant,
    sections: u32,
    held: u32,
    failed: Vec<String>,
    colours: bool,
}

impl Story {
    pub(crate) fn begin() -> Self {
        let colours = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { started: Instant::now(), sections: 0, held: 0, failed: Vec::new(), colours }
    }

    /// A new section.
    pub(crate) fn section(&mut self, title: &str) {
        self.sections += 1;
        let (number, seconds) = (self.sections, self.started.elapsed().as_secs_f32());
        let head = self.paint("1;36", &format!("{number}. {title}"));
        line(format_args!("\n{head}  ({seconds:.1} s)"));
    }

    /// One sentence.
    pub(crate) fn say(&self, text: impl Display) {
        line(format_args!("   {text}"));
    }

    /// A command as one would type it, and what it printed.
    pub(crate) fn shows(&self, command: &str, output: &str) {
        line(format_args!("   {}", self.paint("1", &format!("$ {command}"))));
        for text in output.lines().take(SHOWN) {
            line(format_args!("     {text}"));
        }
        let more = output.lines().count().saturating_sub(SHOWN);
        if more > 0 {
            line(format_args!("     ... {more} lines more"));
        }
    }

    /// A statement, and whether it held: `Ok` with what was seen, or why it did not hold.
    pub(crate) fn states(&mut self, statement: &str, outcome: Result<impl Display>) {
        match outcome {
            Ok(seen) => {
                self.held += 1;
                let mark = self.paint("32", "holds");
                line(format_args!("   [{mark}] {statement}: {seen}"));
            }
            Err(error) => {
                let mark = self.paint("1;31", "FAILS");
                line(format_args!("   [{mark}] {statement}: {error:#}"));
                self.failed.push(statement.to_owned());
            }
        }
    }

    /// Whether a statement failed.
    pub(crate) fn failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The demo could not go on.
    pub(crate) fn broke_off(&mut self, error: &(impl Debug + Display)) {
        line(format_args!("\n{} {error:#}", self.paint("1;31", "broke off:")));
        self.failed.push("the demo runs to its end".to_owned());
    }

    /// The summary, and the exit status that says the same.
    pub(crate) fn end(&mut self) -> ExitCode {
        let took = self.started.elapsed();
        if took > LIMIT {
            self.failed.push(format!("it takes less than {LIMIT:?}"));
        }
        let seconds = took.as_secs_f32();
        let (held, failed) = (self.held, self.failed.len());
        if failed == 0 {
            let mark = self.paint("1;32", "all statements held");
            line(format_args!("\n{mark} ({held}, in {seconds:.1} s)"));
            return ExitCode::SUCCESS;
        }
        let mark = self.paint("1;31", &format!("{failed} of {} failed", held as usize + failed));
        line(format_args!("\n{mark}, in {seconds:.1} s:"));
        for statement in &self.failed {
            line(format_args!("   {statement}"));
        }
        ExitCode::FAILURE
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A reader that went away must not stop the demo from cleaning up.
fn line(text: std::fmt::Arguments<'_>) {
    let _reader_went = writeln!(stdout(), "{text}");
}
