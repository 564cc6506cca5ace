//! Binary messages, from the data path to the agent.

mod app_update;
mod connection;
mod device_counter;
mod fqdn;
mod ip_fqdn;
mod keep_alive;
mod meter;
mod session;
mod session_count;
mod stats;
#[cfg(test)]
pub(crate) mod tests;
mod threat_log;

pub use app_update::{AppPort, AppUpdate};
pub use connection::{Connection, Connections};
pub use device_counter::{DeviceCounter, PARSERS};
pub use fqdn::FqdnUpdate;
pub use ip_fqdn::{IpFqdnRelease, IpFqdnUpdate};
pub use keep_alive::KeepAlive;
pub use meter::{Meter, MeterList};
pub use session::{Session, SessionList, SessionSide};
pub use session_count::SessionCount;
pub use stats::{DeviceStats, MacStats, Stats, StatsWindow};
pub use threat_log::ThreatLog;

use crate::{
    Reader, WireError, Writer,
    ext::{Batch, CaptureReply, Evidence, Status},
    limits::MAX_MESSAGE,
};

/// Number of a message: an open set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kind(pub u8);

impl Kind {
    /// [`AppUpdate`].
    pub const APP_UPDATE: Self = Self(1);
    /// [`SessionList`].
    pub const SESSION_LIST: Self = Self(2);
    /// [`SessionCount`].
    pub const SESSION_COUNT: Self = Self(3);
    /// [`DeviceCounter`].
    pub const DEVICE_COUNTER: Self = Self(4);
    /// [`MeterList`].
    pub const METER_LIST: Self = Self(5);
    /// [`ThreatLog`].
    pub const THREAT_LOG: Self = Self(6);
    /// [`Connections`].
    pub const CONNECTION: Self = Self(7);
    /// [`MacStats`].
    pub const MAC_STATS: Self = Self(8);
    /// [`DeviceStats`].
    pub const DEVICE_STATS: Self = Self(9);
    /// [`KeepAlive`].
    pub const KEEP_ALIVE: Self = Self(10);
    /// [`FqdnUpdate`].
    pub const FQDN_UPDATE: Self = Self(11);
    /// [`IpFqdnUpdate`].
    pub const IP_FQDN_UPDATE: Self = Self(12);
    /// [`IpFqdnRelease`].
    pub const IP_FQDN_RELEASE: Self = Self(13);
}

/// The first four bytes of every message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Which message.
    pub kind: Kind,
    /// Whether more datagrams of the same list follow; in notifications meaningless.
    pub more: bool,
}

impl Header {
    /// Splits a datagram into header and body; the declared length must be the datagram's.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Trailing`], [`WireError::TooLong`].
    pub fn split(datagram: &[u8]) -> Result<(Self, Reader<'_>), WireError> {
        if datagram.len() > MAX_MESSAGE {
            return Err(WireError::TooLong(datagram.len()));
        }
        let mut reader = Reader::new(datagram);
        let (kind, more) = (Kind(reader.u8()?), reader.u8()? != 0);
        match usize::from(reader.u16()?).cmp(&datagram.len()) {
            std::cmp::Ordering::Less => Err(WireError::Trailing),
            std::cmp::Ordering::Equal => Ok((Self { kind, more }, reader)),
            std::cmp::Ordering::Greater => Err(WireError::Truncated),
        }
    }
}

/// One kind of message.
pub trait Body: Sized {
    /// Its number.
    const KIND: Kind;

    /// Reads the body; `more` is the header's.
    ///
    /// # Errors
    /// Any [`WireError`] of the peer's making.
    fn read(reader: &mut Reader<'_>, more: bool) -> Result<Self, WireError>;

    /// Appends the body.
    ///
    /// # Errors
    /// Any [`WireError`] of our own making: more entries than a datagram takes.
    fn write(&self, writer: &mut Writer) -> Result<(), WireError>;

    /// Whether more datagrams of the same list follow.
    fn more(&self) -> bool {
        false
    }

    /// The datagram.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut writer = Writer::new(Self::KIND, self.more());
        self.write(&mut writer)?;
        writer.finish()
    }

    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`WireError::WrongKind`], and as [`Self::read`].
    fn decode_exact(datagram: &[u8]) -> Result<Self, WireError> {
        let (header, reader) = Header::split(datagram)?;
        if header.kind == Self::KIND {
            whole(reader, header)
        } else {
            Err(WireError::WrongKind(header.kind.0))
        }
    }
}

impl<B: Body> Body for Box<B> {
    const KIND: Kind = B::KIND;

    fn read(reader: &mut Reader<'_>, more: bool) -> Result<Self, WireError> {
        B::read(reader, more).map(Self::new)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        B::write(self, writer)
    }

    fn more(&self) -> bool {
        B::more(self)
    }
}

impl From<DeviceCounter> for Reply {
    fn from(counter: DeviceCounter) -> Self {
        Self::DeviceCounter(Box::new(counter))
    }
}

fn whole<B: Body>(mut reader: Reader<'_>, header: Header) -> Result<B, WireError> {
    let body = B::read(&mut reader, header.more)?;
    reader.finish()?;
    Ok(body)
}

/// Declares an enum over kinds, with its codec.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($body:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($body),)*
        }

        impl $name {
            /// Which message.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$variant(_) => <$body>::KIND,)*
                }
            }

            /// The datagram.
            ///
            /// # Errors
            /// Any [`WireError`] of our own making: more entries than a datagram takes.
            pub fn encode(&self) -> Result<Vec<u8>, WireError> {
                match self {
                    $(Self::$variant(body) => body.encode(),)*
                }
            }

            fn read(header: Header, reader: Reader<'_>) -> Option<Result<Self, WireError>> {
                match header.kind {
                    $(<$body>::KIND => Some(whole(reader, header).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

kinds! {
    /// What the data path tells without being asked, to `ctrl_listen.sock`.
    Notification {
        /// The listening ports of a workload and what they speak.
        AppUpdate(AppUpdate),
        /// A detector fired.
        ThreatLog(ThreatLog),
        /// Traffic since the last report.
        Connections(Connections),
        /// The addresses of a wildcard name.
        FqdnUpdate(FqdnUpdate),
        /// An external address has a name.
        IpFqdnUpdate(IpFqdnUpdate),
        /// An external address lost its name.
        IpFqdnRelease(IpFqdnRelease),
        /// Ours: what follows is one batch.
        Batch(Batch),
        /// Ours: sample flows.
        Evidence(Evidence),
    }
}

kinds! {
    /// What the data path answers, to the socket that asked.
    Reply {
        /// To `ctrl_list_session`, several datagrams.
        SessionList(SessionList),
        /// To `ctrl_count_session`.
        SessionCount(SessionCount),
        /// To `ctrl_counter_device`.
        DeviceCounter(Box<DeviceCounter>),
        /// To `ctrl_list_meter`, several datagrams.
        MeterList(MeterList),
        /// To `ctrl_stats_macs`.
        MacStats(MacStats),
        /// To `ctrl_stats_device`.
        DeviceStats(DeviceStats),
        /// To `ctrl_keep_alive`.
        KeepAlive(KeepAlive),
        /// Ours, to `ctrl_outrider_hello`.
        Status(Status),
        /// Ours, to `ctrl_outrider_capture`.
        Capture(CaptureReply),
    }
}

/// Any message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Told without being asked.
    Notification(Notification),
    /// Answered.
    Reply(Reply),
}

impl Message {
    /// Reads a whole datagram of any kind.
    ///
    /// # Errors
    /// Any [`WireError`] of the peer's making.
    pub fn decode_exact(datagram: &[u8]) -> Result<Self, WireError> {
        let (header, reader) = Header::split(datagram)?;
        if let Some(notification) = Notification::read(header, reader.clone()) {
            return notification.map(Self::Notification);
        }
        let unknown = Err(WireError::UnknownKind(header.kind.0));
        Reply::read(header, reader).map_or(unknown, |reply| reply.map(Self::Reply))
    }

    /// The datagram.
    ///
    /// # Errors
    /// Any [`WireError`] of our own making.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        match self {
            Self::Notification(notification) => notification.encode(),
            Self::Reply(reply) => reply.encode(),
        }
    }
}

impl Notification {
    /// Reads a whole datagram from `ctrl_listen.sock`.
    ///
    /// # Errors
    /// [`WireError::WrongKind`] for a reply, and any other [`WireError`] of the peer's making.
    pub fn decode_exact(datagram: &[u8]) -> Result<Self, WireError> {
        match Message::decode_exact(datagram)? {
            Message::Notification(notification) => Ok(notification),
            Message::Reply(reply) => Err(WireError::WrongKind(reply.kind().0)),
        }
    }
}

impl Reply {
    /// Reads a whole datagram that answers a request.
    ///
    /// # Errors
    /// [`WireError::WrongKind`] for a notification, and any other [`WireError`] of the peer's making.
    pub fn decode_exact(datagram: &[u8]) -> Result<Self, WireError> {
        match Message::decode_exact(datagram)? {
            Message::Reply(reply) => Ok(reply),
            Message::Notification(told) => Err(WireError::WrongKind(told.kind().0)),
        }
    }
}

/// Reads `count` entries of a list.
fn entries<T>(
    count: usize,
    mut read: impl FnMut() -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    (0..count).map(|_| read()).collect()
}
