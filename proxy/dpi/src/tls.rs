//! TLS: both hellos, and heartbeats as long as they can be read.
//!
//! The client's hello may be spread over records and chunks. When it is complete its names are said,
//! then the application. Of the server's hello the version is read. Records are walked until a side
//! encrypts what it sends (its ChangeCipherSpec or first application data, or the server's hello of
//! TLS 1.3): up to there a heartbeat is in clear text and worth a look, and nothing else is read.
//! Without the heartbeat detector a side is done after its hello.

mod hello;
mod record;
mod sslv2;

#[cfg(test)]
mod tests;

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    Event, Need,
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix},
};
use hello::Version;
use record::{Found, Records};

pub(crate) use hello::CLIENT_HELLO;

pub(crate) use sslv2::{guess as guess_v2, start as start_v2};

/// Longest handshake message that is put together: a client hello with post-quantum keys has two
/// kilobytes. A longer hello is TLS without a name.
pub(crate) const MAX_HELLO: usize = 16 * 1024;

/// How much more a heartbeat may ask for than it sends before it is a threat.
const HEARTBEAT_SLACK: u16 = 1024;

/// Whether a client's first bytes are a record with the beginning of a client hello.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let prefix = prefix.bytes;
    let fits = |(at, byte): (usize, &u8)| match at {
        0 => *byte == record::HANDSHAKE,
        1 => *byte == 3,
        2 => *byte <= 4,
        3 => *byte <= 0x40,
        4 => prefix.get(3) != Some(&0) || *byte > 0,
        _ => *byte == hello::CLIENT_HELLO,
    };
    if !prefix.iter().take(6).enumerate().all(fits) {
        return Guess::No;
    }
    if prefix.len() < 6 { Guess::More } else { Guess::Yes }
}

/// The server name and the first protocol offered in a whole client hello that came without records.
pub(crate) fn names(message: &[u8]) -> (Option<Box<str>>, Option<Box<str>>) {
    let hello = hello::client(message).unwrap_or_default();
    (hello.server_name, hello.protocol)
}

/// Starts reading a flow that was recognised as TLS.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Tls { client: Records::default(), server: Records::default(), warned: None })
}

#[derive(Debug)]
struct Tls {
    client: Records,
    server: Records,
    /// The version that a finding was about.
    warned: Option<Version>,
}

impl Inspector for Tls {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        while !chunk.is_empty() {
            let records = match side {
                Side::Client => &mut self.client,
                Side::Server => &mut self.server,
            };
            match records.read(&mut chunk) {
                Found::Nothing => {}
                Found::Hello(message) => self.hello(side, &message, sink),
                Found::Other => self.after_hello(side, sink),
                Found::Heartbeat { asked, sent } => heartbeat(side, asked, sent, sink),
            }
            if self.need(side) == Need::Nothing {
                break;
            }
        }
        if self.client.is_stopped() {
            sink.application(AppId::SSL);
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
            sink.application(AppId::SSL);
        }
    }

    fn need(&self, side: Side) -> Need {
        match side {
            Side::Client => self.client.need(),
            Side::Server => self.server.need(),
        }
    }

    fn held(&self) -> usize {
        self.client.held().saturating_add(self.server.held())
    }
}

impl Tls {
    /// A side's first handshake message is complete.
    fn hello(&mut self, side: Side, message: &[u8], sink: &mut Sink<'_>) {
        let version = match side {
            Side::Client => {
                let hello = hello::client(message).unwrap_or_default();
                sink.events.extend(hello.server_name.map(Event::Sni));
                sink.events.extend(hello.protocol.map(Event::Alpn));
                hello.version
            }
            Side::Server => hello::server(message),
        };
        self.after_hello(side, sink);
        self.judge(side, version, sink);
    }

    fn after_hello(&mut self, side: Side, sink: &mut Sink<'_>) {
        if side == Side::Client {
            sink.application(AppId::SSL);
        }
        if !sink.config.is_on(ThreatId::HEARTBLEED) {
            match side {
                Side::Client => self.client.stop(),
                Side::Server => self.server.stop(),
            }
        }
    }

    /// Warns of an old version, once for each; from TLS 1.3 on all that follows is encrypted.
    fn judge(&mut self, side: Side, version: Option<Version>, sink: &mut Sink<'_>) {
        let Some(version) = version else { return };
        if let Some(threat) = version.threat()
            && self.warned != Some(version)
        {
            self.warned = Some(version);
            let message = match side {
                Side::Client => format!("client offers {} at most", version.name()),
                Side::Server => format!("server chose {}", version.name()),
            };
            sink.threat(threat, side, message);
        }
        if side == Side::Server && version.encrypts_at_once() {
            self.client.stop();
            self.server.stop();
        }
    }
}

/// A heartbeat request in clear text: whether it asks for much more than it sends.
fn heartbeat(side: Side, asked: u16, sent: u16, sink: &mut Sink<'_>) {
    if asked.saturating_sub(sent) > HEARTBEAT_SLACK {
        let message = format!("heartbeat asks for {asked} bytes but sends {sent}");
        sink.threat(ThreatId::HEARTBLEED, side, message);
    }
}
