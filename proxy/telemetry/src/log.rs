//! The log: JSON lines on standard error, with a level that can be changed while running.

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people at a terminal.
    Text,
}

/// Changes the level of a running process.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Takes directives such as `info` or `info,access=debug`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn set(&self, directives: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Installs the log for the process.
///
/// # Errors
/// A sentence: the directives are malformed, or a log is installed already.
pub fn init_log(directives: &str, format: LogFormat) -> Result<LogHandle, String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Json => {
            let json = lines.json().flatten_event(true);
            tracing::subscriber::set_global_default(registry.with(json))
        }
        LogFormat::Text => tracing::subscriber::set_global_default(registry.with(lines)),
    };
    installed.map_err(|error| error.to_string())?;
    Ok(LogHandle(handle))
}
