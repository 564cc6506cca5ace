//! Puts a pod's traffic in front of the proxy.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use outrider_init::cli::{self, Task};
use outrider_init::plan::Plan;
use outrider_init::settings::RawSettings;
use outrider_init::{InitError, apply, render, verify};

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let Some((task, raw)) = cli::read(&matches) else { return ExitCode::from(2) };
    match run(task, &raw).and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone too, the exit code still tells.
            drop(writeln!(io::stderr(), "outrider-init: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Does the task; what it returns goes to standard output.
fn run(task: Task, raw: &RawSettings) -> Result<String, InitError> {
    let settings = raw.parse().map_err(InitError::Settings)?;
    let plan = Plan::new(&settings);
    match task {
        Task::Plan => Ok(render::text(&plan, settings.backend)),
        Task::Apply => apply::apply(&plan, &settings).map(|report| report.to_string()),
        Task::Cleanup => apply::cleanup(&plan).map(|report| report.to_string()),
        Task::Verify => verify::verify(&settings),
    }
}
