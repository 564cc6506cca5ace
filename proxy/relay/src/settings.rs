//! How patient the relay is.

use std::time::Duration;

/// Times and sizes of every flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelaySettings {
    /// How long the other end may take to answer a dial.
    pub connect_timeout: Duration,
    /// Bytes of a client that are held at most until policy can decide.
    pub hold_bytes: usize,
    /// How long a client's bytes are held at most; then the flow counts as unidentified.
    pub hold_time: Duration,
    /// A flow of which one side has sent its end is cut when the other is silent for so long.
    pub half_close_timeout: Duration,
    /// A flow is cut when both sides are silent for so long; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            hold_bytes: 16 * 1024,
            hold_time: Duration::from_secs(5),
            half_close_timeout: Duration::from_secs(90),
            idle_timeout: None,
        }
    }
}
