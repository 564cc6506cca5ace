//! HTTP/1: requests, responses and where each of their bodies ends.
//!
//! Heads are read line by line without copying what arrives whole; bodies of known length are
//! announced as opaque, so that they need not pass through here. Framing is read strictly. What two
//! readers may understand differently is a finding ([`head`] and [`chunk`] say what), and after it
//! nothing of the flow is read any more: whoever lets it go on lets it go on unread. The same holds,
//! without an event, where the detector is off, after a switch to another protocol (101, CONNECT)
//! and for a side whose bytes are not HTTP.

mod chunk;
mod head;
mod host;
mod pending;
mod startline;
mod wing;

#[cfg(test)]
mod tests;

use outrider_model::{AppId, Side};

use crate::{
    Event, Need,
    bytes::Line,
    inspector::{Inspector, Sink},
};
use head::{FieldName, Framing};
use pending::{Kind, Pending};
use startline::Version;
use wing::{Fault, Step, Wing};

pub(crate) use startline::{guess_request, guess_response};

/// Longest first head that [`Event::Application`] waits for, so that the host comes before it.
pub(crate) const MAX_FIRST_HEAD: usize = 8 * 1024;

/// Starts reading a flow that was recognised as HTTP/1.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Http {
        client: Wing::new(Side::Client),
        server: Wing::new(Side::Server),
        pending: Pending::default(),
        request: Kind::Plain,
        response: Kind::Plain,
        status: 0,
        host: None,
        software_known: false,
    })
}

#[derive(Debug)]
struct Http {
    client: Wing,
    server: Wing,
    /// Requests whose response has not begun.
    pending: Pending,
    /// The request being read.
    request: Kind,
    /// The request that the response being read answers.
    response: Kind,
    /// The status of the response being read.
    status: u16,
    /// The host that was last said.
    host: Option<Box<str>>,
    software_known: bool,
}

impl Inspector for Http {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        loop {
            let step = match side {
                Side::Client => self.client.read(&mut chunk),
                Side::Server => self.server.read(&mut chunk),
            };
            match (side, step) {
                (_, Step::More) => return,
                (_, Step::Long) => sink.application(AppId::HTTP),
                (_, Step::Fault(fault)) => self.distrust(side, fault, sink),
                (Side::Client, Step::Start(line)) => self.request_line(&line, sink),
                (Side::Client, Step::Field(name, value)) => self.request_field(name, &value, sink),
                (Side::Client, Step::End(framing)) => self.request_body(framing, sink),
                (Side::Server, Step::Start(line)) => self.status_line(&line, sink),
                (Side::Server, Step::Field(name, value)) => {
                    self.response_field(name, &value, sink);
                }
                (Side::Server, Step::End(framing)) => self.response_body(framing),
            }
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        match side {
            Side::Client => self.client.skip(bytes),
            Side::Server => self.server.skip(bytes),
        }
    }

    fn end(&mut self, side: Side, sink: &mut Sink<'_>) {
        if side == Side::Client {
            sink.application(AppId::HTTP);
        }
    }

    fn need(&self, side: Side) -> Need {
        match side {
            Side::Client => self.client.need(),
            Side::Server => self.server.need(),
        }
    }

    fn held(&self) -> usize {
        let host = self.host.as_ref().map_or(0, |host| host.len());
        self.client
            .held()
            .saturating_add(self.server.held())
            .saturating_add(host)
    }
}

impl Http {
    /// Stops reading: the protocol changed, or its framing can't be trusted.
    fn stop(&mut self) {
        self.client.stop();
        self.server.stop();
    }

    fn distrust(&mut self, side: Side, fault: Fault, sink: &mut Sink<'_>) {
        sink.application(AppId::HTTP);
        sink.threat(fault.id, side, fault.message);
        self.stop();
    }

    fn request_line(&mut self, line: &Line<'_>, sink: &mut Sink<'_>) {
        let Some(request) = startline::request(line) else {
            return self.no_request(line, sink);
        };
        self.request = request.kind;
        match request.version {
            Version::Http { minor } => {
                self.client.begin(minor == 0);
                self.say_host(host::of_target(request.target, request.kind), sink);
            }
            Version::Simple => {
                sink.application(AppId::HTTP);
                sink.request();
                self.stop();
            }
            Version::Other(app) => {
                sink.application(app);
                self.stop();
            }
        }
    }

    /// Something else where a request must start: the start of another protocol, or a request that
    /// only a more lenient reader takes for one.
    fn no_request(&mut self, line: &Line<'_>, sink: &mut Sink<'_>) {
        if startline::resembles_request(line) && !self.pending.may_switch() {
            return self.distrust(Side::Client, Fault::NO_REQUEST, sink);
        }
        self.client.stop();
    }

    fn request_field(&mut self, name: FieldName, value: &[u8], sink: &mut Sink<'_>) {
        match name {
            FieldName::Host => self.say_host(Some(value), sink),
            FieldName::Upgrade if self.request == Kind::Plain => self.request = Kind::Upgrade,
            FieldName::Upgrade | FieldName::Server => {}
        }
    }

    fn say_host(&mut self, value: Option<&[u8]>, sink: &mut Sink<'_>) {
        let Some(value) = value.map(host::without_port) else { return };
        let known = self.host.as_deref().unwrap_or_default();
        if value.eq_ignore_ascii_case(known.as_bytes()) {
            return;
        }
        if let Some(host) = host::normal(value) {
            sink.events.push(Event::Host(host.clone()));
            self.host = Some(host);
        }
    }

    fn request_body(&mut self, framing: Framing, sink: &mut Sink<'_>) {
        sink.application(AppId::HTTP);
        sink.request();
        self.client.body(framing);
        if !self.pending.push(self.request) {
            self.server.stop();
        }
    }

    fn status_line(&mut self, line: &Line<'_>, sink: &mut Sink<'_>) {
        sink.application(AppId::HTTP);
        let Some((minor, status)) = startline::status(line) else {
            return self.server.stop();
        };
        self.status = status;
        self.response = if informs(status) { Kind::Plain } else { self.pending.pop() };
        self.server.begin(minor == 0);
    }

    fn response_field(&mut self, name: FieldName, value: &[u8], sink: &mut Sink<'_>) {
        if name == FieldName::Server
            && !self.software_known
            && let Some(software) = software(value)
        {
            self.software_known = true;
            sink.events.push(Event::ServerSoftware(software));
        }
    }

    fn response_body(&mut self, framing: Framing) {
        match (self.status, self.response) {
            (101, Kind::Upgrade) | (200..=299, Kind::Connect) => self.stop(),
            (101, _) => self.server.stop(),
            (status, _) if informs(status) => self.server.body(Framing::Empty),
            (204 | 304, _) | (_, Kind::Head) => self.server.body(Framing::Empty),
            (_, _) => self.server.body(framing),
        }
    }
}

/// Whether a status announces another one.
fn informs(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// A host as events show it, from a value that may have a port.
pub(crate) fn normal_host(value: &[u8]) -> Option<Box<str>> {
    host::normal(host::without_port(value))
}

/// The server software that a `Server` header names.
pub(crate) fn software(value: &[u8]) -> Option<AppId> {
    let known: [(&[u8], AppId); 3] =
        [(b"nginx", AppId::NGINX), (b"apache", AppId::APACHE), (b"jetty", AppId::JETTY)];
    known
        .into_iter()
        .find(|(name, _)| {
            value
                .get(..name.len())
                .is_some_and(|v| v.eq_ignore_ascii_case(name))
        })
        .map(|(_, app)| app)
}
