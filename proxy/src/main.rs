//! `outrider-proxy`: settings in, proxy up, drained and out.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use outrider_proxy::{
    assembly, hooks,
    settings::{ProcessEnv, Settings, help},
};
use outrider_telemetry::{LogFormat, init_log};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => start(),
        Some("--help" | "-h") => say(&help::text()),
        Some("await") => hook(hooks::wait_until_ready),
        Some("linger") => hook(|port| {
            hooks::linger(port);
            Ok(())
        }),
        Some("--version" | "-V") => {
            say(concat!("outrider-proxy ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Some(other) => complain(&format!(
            "unknown argument {other:?}: the proxy has settings only, see --help"
        )),
    }
}

fn start() -> ExitCode {
    let settings = match Settings::read(&ProcessEnv) {
        Ok(settings) => settings,
        Err(error) => return complain(&error.to_string()),
    };
    let log = match init_log(&settings.log, LogFormat::Json) {
        Ok(log) => log,
        Err(error) => return complain(&format!("OUTRIDER_PROXY_LOG: {error}")),
    };
    match assembly::run(settings, Some(log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run");
            ExitCode::FAILURE
        }
    }
}

/// What a pod's hooks run, beside the proxy that runs already.
fn hook(run: impl FnOnce(u16) -> io::Result<()>) -> ExitCode {
    match Settings::read(&ProcessEnv) {
        Err(error) => complain(&error.to_string()),
        Ok(settings) => match run(settings.health_port) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("the proxy is not ready: {error}")),
        },
    }
}

fn say(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) -> ExitCode {
    // Nobody is left to tell if standard error is closed.
    let _told = writeln!(io::stderr(), "outrider-proxy: {text}");
    ExitCode::from(2)
}
