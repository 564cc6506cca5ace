//! What an inspector says, and what it still wants to see.

use std::borrow::Cow;

use outrider_model::{AppId, Side, ThreatId};

/// Longest name in an event: a DNS name's limit.
pub const MAX_NAME: usize = 255;

/// Longest message of a [`Finding`]: the ctrl wire's field without its terminator.
pub const MAX_MESSAGE: usize = 63;

/// Something learned from the bytes of a flow.
///
/// The names that a client's first message carries ([`Event::Host`], [`Event::Sni`],
/// [`Event::Alpn`]) come before [`Event::Application`]: a name that is missing then will not come
/// later in that message, unless the message is longer than the inspector waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Identification is final. At most once a flow. Base or application id.
    Application(AppId),
    /// Every recogniser gave up. At most once, never with `Application`.
    Unidentified,
    /// Server software (`AppId::NGINX` ...), from a response header. At most once a flow.
    ServerSoftware(AppId),
    /// HTTP Host or `:authority`, lower case, without port, at most [`MAX_NAME`] bytes. Again
    /// whenever it changes.
    Host(Box<str>),
    /// TLS server name, lower case, at most [`MAX_NAME`] bytes.
    Sni(Box<str>),
    /// First protocol the client offers by ALPN.
    Alpn(Box<str>),
    /// One request of a request/response protocol was read completely enough to count: the head
    /// of an HTTP request, a Redis command, an SQL query, a DNS message.
    Request,
    /// A detector fired.
    Threat(Finding),
}

/// A detector's result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What was found.
    pub id: ThreatId,
    /// Who sent it.
    pub side: Side,
    /// For people, at most [`MAX_MESSAGE`] bytes.
    pub message: Cow<'static, str>,
}

/// What an inspector still wants of one side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Every byte of that side.
    Bytes,
    /// The next bytes after the chunk just fed are opaque: they may be reported with
    /// [`skip`](crate::FlowInspector::skip), all or some, or be fed as always.
    Skip(u64),
    /// Nothing more of that side, ever.
    Nothing,
}

/// What an inspector still wants of both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interest {
    /// Of the client's bytes.
    pub client: Need,
    /// Of the server's bytes.
    pub server: Need,
}

impl Interest {
    /// Nothing of either side.
    pub(crate) const OVER: Self = Self { client: Need::Nothing, server: Need::Nothing };

    /// The need of one side.
    #[must_use]
    pub fn of(self, side: Side) -> Need {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Whether the inspector wants nothing more at all.
    #[must_use]
    pub fn is_over(self) -> bool {
        self == Self::OVER
    }
}
