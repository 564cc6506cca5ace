//! What shows the pod's frames.

use outrider_capture::{CaptureError, Filter, Frame, Tap, TapCounters, TapSettings};
use tracing::{info, warn};

use super::Tier;
use crate::settings::Settings;

/// The taps of this pod, which come and go with their interfaces.
#[derive(Debug)]
pub(crate) struct Taps {
    settings: Option<TapSettings>,
    tap: Option<Tap>,
    last: TapCounters,
    warned: bool,
}

impl Taps {
    /// A tap that is opened if the tier has one.
    pub(crate) fn new(settings: &Settings, tier: Tier) -> Self {
        // What the relay holds is not copied, but for the first packet of each connection.
        let ports = settings.packets.uncaptured.clone();
        let filter = if tier.relay { Filter::Openings(ports) } else { Filter::Everything };
        let settings = tier
            .tap
            .then(|| TapSettings { filter, ..TapSettings::default() });
        Self { settings, tap: None, last: TapCounters::default(), warned: false }
    }

    /// Opens what is to be open and is not.
    pub(crate) fn open(&mut self) {
        let Some(settings) = self.settings.as_ref().filter(|_| self.tap.is_none()) else { return };
        match Tap::open(settings) {
            Ok(tap) => {
                info!("packets are looked at");
                self.tap = Some(tap);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Shows other frames from now on.
    pub(crate) fn set_filter(&mut self, filter: Filter) {
        let set = self
            .tap
            .as_ref()
            .map_or(Ok(()), |tap| tap.set_filter(&filter));
        if let Err(error) = set {
            warn!(%error, "the tap keeps its filter");
        }
        if let Some(settings) = &mut self.settings {
            settings.filter = filter;
        }
    }

    /// Whether frames are shown.
    pub(crate) fn is_there(&self) -> bool {
        self.tap.is_some()
    }

    /// Waits until there are frames.
    pub(crate) async fn ready(&mut self) {
        let Some(tap) = &mut self.tap else { return std::future::pending().await };
        if let Err(error) = tap.ready().await {
            self.failed(&error);
        }
    }

    /// Shows one block of frames; whether there was one.
    pub(crate) fn show(&mut self, mut visit: impl FnMut(&Frame<'_>)) -> bool {
        self.tap
            .as_mut()
            .and_then(|tap| tap.show(|frame| visit(&frame)))
            .is_some()
    }

    /// What was seen and lost so far.
    pub(crate) fn counters(&mut self) -> TapCounters {
        if let Some(Ok(counters)) = self.tap.as_mut().map(Tap::counters) {
            self.last = counters;
        }
        self.last
    }

    /// Said once; what goes on failing is tried again every second.
    fn failed(&mut self, error: &CaptureError) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(%error, reason = error.reason(), "packets are not looked at");
        }
    }
}
