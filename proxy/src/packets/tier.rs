//! How much of the pod's traffic the proxy sees, and how much it can stop.

use anyhow::bail;

use crate::{
    rights::Rights,
    settings::{CaptureChoice, PacketsChoice, Settings},
};

/// What works. Without any of the three the proxy sees no traffic: it can only observe sockets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tier {
    /// Connections are redirected to the proxy.
    pub relay: bool,
    /// Packets are seen.
    pub tap: bool,
    /// Packets wait for the proxy's verdict.
    pub queue: bool,
}

impl Tier {
    /// All labels, for the closed label set.
    pub(crate) const LABELS: [&str; 8] = [
        "observe",
        "relay",
        "tap",
        "relay+tap",
        "queue",
        "relay+queue",
        "tap+queue",
        "relay+tap+queue",
    ];

    /// What settings ask for and rights allow.
    ///
    /// # Errors
    /// Something is asked for by name that the rights do not allow.
    pub(crate) fn choose(settings: &Settings, rights: &Rights) -> anyhow::Result<Self> {
        let relay = settings.capture != CaptureChoice::None;
        let choice = settings.packets.choice;
        let wants_tap = matches!(choice, PacketsChoice::Tap | PacketsChoice::Queue);
        if wants_tap && !rights.tap() {
            bail!("OUTRIDER_PROXY_PACKETS asks for a tap, which takes the capability NET_RAW");
        }
        if choice == PacketsChoice::Queue && !rights.queue() {
            bail!("OUTRIDER_PROXY_PACKETS asks for a queue, which takes the capability NET_ADMIN");
        }
        let (tap, queue) = match choice {
            PacketsChoice::Off => (false, false),
            PacketsChoice::Tap => (true, false),
            PacketsChoice::Queue => (true, true),
            PacketsChoice::Auto => {
                (rights.tap(), rights.queue() && settings.packets.queue_rule.is_some())
            }
        };
        Ok(Self { relay, tap, queue })
    }

    /// The closed label of logs, the status and metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        let place =
            usize::from(self.relay) + 2 * usize::from(self.tap) + 4 * usize::from(self.queue);
        Self::LABELS[place]
    }
}
