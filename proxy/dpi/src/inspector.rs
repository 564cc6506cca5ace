//! What every protocol's inspector has in common.

use std::{borrow::Cow, fmt::Debug};

use outrider_model::{AppId, Side, ThreatId};

use crate::{DpiConfig, Event, Finding, MAX_MESSAGE, Need};

/// One protocol's reader, from the moment the protocol is recognised. It is given the flow's bytes
/// from the first one on, and must say [`Sink::application`] at most once.
pub(crate) trait Inspector: Debug + Send {
    /// Consumes one chunk, which is not empty; the cut points between chunks never change the events.
    fn feed(&mut self, side: Side, chunk: &[u8], sink: &mut Sink<'_>);

    /// `bytes` of a side went by unseen, within what its last `Need::Skip` allowed.
    fn skip(&mut self, side: Side, bytes: u64);

    /// A side sent its last byte.
    fn end(&mut self, _side: Side, _sink: &mut Sink<'_>) {}

    /// What is still wanted of a side.
    fn need(&self, side: Side) -> Need;

    /// Bytes of the peers held right now.
    fn held(&self) -> usize;
}

/// Where an inspector puts what it learns.
pub(crate) struct Sink<'a> {
    pub(crate) config: &'a DpiConfig,
    pub(crate) events: &'a mut Vec<Event>,
    pub(crate) app: &'a mut Option<AppId>,
}

impl Sink<'_> {
    /// Says what the flow speaks; what was said first stays.
    pub(crate) fn application(&mut self, app: AppId) {
        if self.app.is_none() {
            *self.app = Some(app);
            self.events.push(Event::Application(app));
        }
    }

    /// Reports a threat if its detector is on.
    pub(crate) fn threat(
        &mut self,
        id: ThreatId,
        side: Side,
        message: impl Into<Cow<'static, str>>,
    ) {
        if self.config.is_on(id) {
            let message = clip(message.into());
            self.events
                .push(Event::Threat(Finding { id, side, message }));
        }
    }

    /// Counts one request.
    pub(crate) fn request(&mut self) {
        self.events.push(Event::Request);
    }
}

/// Cuts a message to [`MAX_MESSAGE`] bytes, between characters.
fn clip(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let end = message.floor_char_boundary(MAX_MESSAGE);
    message.get(..end).unwrap_or_default().to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_messages_between_characters() {
        assert_eq!(clip("short".into()), "short");
        let long = clip("ä".repeat(40).into());
        assert_eq!(long, "ä".repeat(31));
    }

    #[test]
    fn a_detector_that_is_off_says_nothing() {
        let config = DpiConfig::default().with_threat(ThreatId::SMUGGLING, false);
        let (mut events, mut app) = (Vec::new(), None);
        let mut sink = Sink { config: &config, events: &mut events, app: &mut app };
        sink.threat(ThreatId::SMUGGLING, Side::Client, "quiet");
        sink.threat(ThreatId::HEARTBLEED, Side::Client, "loud");
        assert_eq!(events.len(), 1);
    }
}
