//! What the roles have in common: log, settings said once, runtime, signals.

use std::{fmt::Debug, io, pin::Pin};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use outrider_telemetry::{LogFormat, init_log};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Opens the log, and says what is in force and what is no setting at all.
///
/// # Errors
/// When `log` is no filter.
pub fn begin(settings: &dyn Debug, log: &str, unknown: &[String]) -> Result<(), String> {
    init_log(log, LogFormat::Json)?;
    for name in unknown {
        tracing::warn!(name, "no such setting; see --help");
    }
    tracing::info!(?settings, files = raise_open_files(), "effective settings");
    Ok(())
}

/// Every mailbox of a bridge costs four descriptors, so the soft limit goes up to the hard one.
fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_kept) => soft,
    }
}

/// Names of the variables that are set.
pub fn variables() -> impl Iterator<Item = String> {
    std::env::vars_os().filter_map(|(key, _)| key.into_string().ok())
}

/// Runs a role to its end.
///
/// # Errors
/// What the role ends with, or what the system says when there is no runtime to be had.
pub fn run<E: From<io::Error>>(role: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(role);
    // Whoever does not read standard output any more must not keep us from ending.
    runtime.shutdown_background();
    ended
}

/// The signals that end a role.
#[derive(Debug)]
pub struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    /// From now on they do.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Runs until one comes, and then until what runs has put its things in order.
    ///
    /// # Errors
    /// What it ends with.
    pub async fn wait<E>(
        mut self,
        mut running: Pin<Box<impl Future<Output = Result<(), E>>>>,
        stop: CancellationToken,
    ) -> Result<(), E> {
        tokio::select! {
            biased;
            ended = &mut running => return ended,
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        stop.cancel();
        running.await
    }
}
