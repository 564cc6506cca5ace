//! One flow's inspection, from the first byte to the end of interest.

use std::sync::Arc;

use outrider_model::{AppId, Side};

use crate::{
    DpiConfig, Event, Interest, Need,
    inspector::{Inspector, Sink},
    recognise::{Outcome, Race},
};

/// Most bytes of the peers that an inspector holds between two calls, whatever they send: two messages
/// that are cut at their limits, and a little state.
pub const MAX_HELD: usize = 2 * 16 * 1024 + 1024;

/// Reads one TCP flow: feed it what passes, do with the events what policy says.
///
/// It holds less than a kilobyte while it waits; bytes of the peers are copied only where a message
/// is cut by the chunks, up to named limits. When nothing more is of interest everything is freed.
#[derive(Debug)]
pub struct FlowInspector {
    config: Arc<DpiConfig>,
    server_port: u16,
    app: Option<AppId>,
    client_ended: bool,
    server_ended: bool,
    stage: Stage,
}

/// How far inspection has come.
#[derive(Debug)]
enum Stage {
    /// Recognisers look at the first bytes.
    Racing(Race),
    /// A protocol's inspector reads.
    Reading(Box<dyn Inspector>),
    /// Nothing more is wanted.
    Over,
}

impl FlowInspector {
    /// Starts with a flow that has not sent anything yet.
    #[must_use]
    pub fn new(config: Arc<DpiConfig>, server_port: u16) -> Self {
        Self {
            config,
            server_port,
            app: None,
            client_ended: false,
            server_ended: false,
            stage: Stage::Racing(Race::default()),
        }
    }

    /// Takes the next bytes of one side, in their order.
    pub fn feed(&mut self, side: Side, chunk: &[u8], events: &mut Vec<Event>) -> Interest {
        if chunk.is_empty() {
            return self.interest();
        }
        match &mut self.stage {
            Stage::Racing(race) => {
                let outcome = race.feed(side, chunk, self.server_port);
                self.settle(outcome, side, chunk, events);
            }
            Stage::Reading(inspector) => {
                let mut sink = Sink { config: &self.config, events, app: &mut self.app };
                inspector.feed(side, chunk, &mut sink);
            }
            Stage::Over => {}
        }
        self.interest()
    }

    /// `bytes` of that side went by unseen, at most what its last [`Need::Skip`] allowed.
    pub fn skip(&mut self, side: Side, bytes: u64, events: &mut Vec<Event>) -> Interest {
        match &mut self.stage {
            Stage::Racing(_) if bytes > 0 => self.give_up(events),
            Stage::Reading(inspector) => inspector.skip(side, bytes),
            Stage::Racing(_) | Stage::Over => {}
        }
        self.interest()
    }

    /// That side sent its last byte.
    pub fn end(&mut self, side: Side, events: &mut Vec<Event>) -> Interest {
        match side {
            Side::Client => self.client_ended = true,
            Side::Server => self.server_ended = true,
        }
        let both = self.client_ended && self.server_ended;
        match &mut self.stage {
            Stage::Racing(race) if both || race.hangs_on(side) => self.give_up(events),
            Stage::Reading(inspector) => {
                let mut sink = Sink { config: &self.config, events, app: &mut self.app };
                inspector.end(side, &mut sink);
            }
            Stage::Racing(_) | Stage::Over => {}
        }
        self.interest()
    }

    /// What [`Event::Application`] said.
    #[must_use]
    pub fn app(&self) -> Option<AppId> {
        self.app
    }

    /// Bytes of the peers that are held right now, because a message is not complete.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.stage {
            Stage::Racing(race) => race.held(),
            Stage::Reading(inspector) => inspector.held(),
            Stage::Over => 0,
        }
    }

    fn give_up(&mut self, events: &mut Vec<Event>) {
        self.stage = Stage::Over;
        events.push(Event::Unidentified);
    }

    /// Acts on the race's outcome; the winner gets all bytes so far.
    fn settle(&mut self, outcome: Outcome, side: Side, chunk: &[u8], events: &mut Vec<Event>) {
        let (mut inspector, earlier) = match outcome {
            Outcome::Open => return,
            Outcome::Nobody => return self.give_up(events),
            Outcome::Found(inspector, earlier) => (inspector, earlier),
        };
        let mut sink = Sink { config: &self.config, events, app: &mut self.app };
        let rest = chunk.get(earlier.taken..).unwrap_or_default();
        let second = &earlier.second;
        for (side, bytes) in [(side, &*earlier.first), (side.other(), &**second), (side, rest)] {
            if !bytes.is_empty() {
                inspector.feed(side, bytes, &mut sink);
            }
        }
        for (ended, side) in [(self.client_ended, Side::Client), (self.server_ended, Side::Server)]
        {
            if ended {
                inspector.end(side, &mut sink);
            }
        }
        self.stage = Stage::Reading(inspector);
    }

    /// What is wanted now; frees everything when that is nothing.
    fn interest(&mut self) -> Interest {
        let interest = match &self.stage {
            Stage::Racing(_) => Interest {
                client: if self.client_ended { Need::Nothing } else { Need::Bytes },
                server: if self.server_ended { Need::Nothing } else { Need::Bytes },
            },
            Stage::Reading(inspector) => Interest {
                client: if self.client_ended {
                    Need::Nothing
                } else {
                    inspector.need(Side::Client)
                },
                server: if self.server_ended {
                    Need::Nothing
                } else {
                    inspector.need(Side::Server)
                },
            },
            Stage::Over => Interest::OVER,
        };
        if interest.is_over() {
            self.stage = Stage::Over;
        }
        interest
    }
}
