//! Applications over UDP, recognised by the bytes of single datagrams.
//!
//! A port never decides alone: it only helps where the bytes are weak. Nothing is kept of the
//! datagrams but a QUIC client's hello until it is whole; a flow whose first ones say nothing stays
//! unidentified.

mod binary;
pub(crate) mod dns;
mod quic;
mod text;

use std::sync::Arc;

use outrider_model::{AppId, Side};

use self::quic::Quic;
#[cfg(any(test, feature = "test-util"))]
pub use self::quic::initial as quic_initial;
use crate::{DpiConfig, Event, inspector::Sink};

/// Datagrams of a flow that are looked at before it counts as unidentified.
pub const MAX_TRIES: u8 = 8;

/// One datagram and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) side: Side,
    pub(crate) bytes: &'a [u8],
    /// The server's port.
    pub(crate) port: u16,
}

/// How a recogniser is asked.
type Ask = fn(Datagram<'_>) -> bool;

/// Who is asked, the ones with the strongest evidence first.
const RECOGNISERS: [(AppId, Ask); 8] = [
    (AppId::DHCP, binary::is_dhcp),
    (AppId::SIP, text::is_sip),
    (AppId::QUIC, quic::is_quic),
    (AppId::RADIUS, binary::is_radius),
    (AppId::TFTP, binary::is_tftp),
    (AppId::NTP, binary::is_ntp),
    (AppId::DNS, dns::is_dns),
    (AppId::SYSLOG, text::is_syslog),
];

/// Reads one UDP flow, datagram by datagram. It holds nothing of them but a QUIC hello on its way.
#[derive(Debug)]
pub struct DatagramInspector {
    config: Arc<DpiConfig>,
    server_port: u16,
    app: Option<AppId>,
    quic: Option<Box<Quic>>,
    tries: u8,
    over: bool,
}

impl DatagramInspector {
    /// Starts with a flow of which nothing was seen.
    #[must_use]
    pub fn new(config: Arc<DpiConfig>, server_port: u16) -> Self {
        Self { config, server_port, app: None, quic: None, tries: 0, over: false }
    }

    /// Takes one whole datagram; whether more are wanted.
    pub fn feed(&mut self, side: Side, datagram: &[u8], events: &mut Vec<Event>) -> bool {
        if self.over || datagram.is_empty() {
            return !self.over;
        }
        let datagram = Datagram { side, bytes: datagram, port: self.server_port };
        if self.quic.is_some() {
            return self.quic(datagram, events);
        }
        let mut sink = Sink { config: &self.config, events, app: &mut self.app };
        if sink.app.is_none() {
            match RECOGNISERS.iter().find(|(_, is)| is(datagram)) {
                Some((AppId::QUIC, _)) => return self.quic(datagram, events),
                Some((app, _)) => sink.application(*app),
                None => {
                    dns::look_broken(datagram, &mut sink);
                    return self.missed(events);
                }
            }
        }
        match self.app {
            Some(AppId::DNS) => {
                let mut sink = Sink { config: &self.config, events, app: &mut self.app };
                dns::read(datagram, &mut sink);
            }
            _ => self.over = true,
        }
        !self.over
    }

    /// Bytes of the peers that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.quic.as_ref().map_or(0, |quic| quic.held())
    }

    /// The flow is over, or nobody looks any longer.
    pub fn end(&mut self, events: &mut Vec<Event>) {
        if self.quic.is_some() {
            self.quic_over(events);
        } else if !self.over && self.app.is_none() && self.tries > 0 {
            events.push(Event::Unidentified);
        }
        self.over = true;
    }

    /// What [`Event::Application`] said.
    #[must_use]
    pub fn app(&self) -> Option<AppId> {
        self.app
    }

    /// Reads a QUIC client's hello as far as it has come; the application is said behind its names.
    fn quic(&mut self, datagram: Datagram<'_>, events: &mut Vec<Event>) -> bool {
        let quic = self.quic.get_or_insert_default();
        if quic.read(datagram, events) {
            self.quic_over(events);
        }
        !self.over
    }

    fn quic_over(&mut self, events: &mut Vec<Event>) {
        self.quic = None;
        self.over = true;
        Sink { config: &self.config, events, app: &mut self.app }.application(AppId::QUIC);
    }

    /// Nobody knows the datagram.
    fn missed(&mut self, events: &mut Vec<Event>) -> bool {
        self.tries = self.tries.saturating_add(1);
        if self.tries >= MAX_TRIES {
            self.end(events);
        }
        !self.over
    }
}

#[cfg(test)]
mod tests;
