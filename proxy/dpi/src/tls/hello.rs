//! What hellos say.

use outrider_model::ThreatId;

use crate::{
    MAX_NAME,
    bytes::{Reader, graphic, name},
};

/// The kind of a client's hello.
pub(crate) const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Most extensions that are looked at.
const MAX_EXTENSIONS: usize = 128;

/// A protocol version as hellos give it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version(u16);

impl Version {
    const TLS_1_2: Self = Self(0x0303);
    const TLS_1_3: Self = Self(0x0304);

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            0..=0x02ff => "SSL 2.0",
            0x0300 => "SSL 3.0",
            0x0301 => "TLS 1.0",
            0x0302 => "TLS 1.1",
            0x0303 => "TLS 1.2",
            _ => "TLS 1.3",
        }
    }

    /// The threat that a version is.
    pub(super) fn threat(self) -> Option<ThreatId> {
        match self.0 {
            0..=0x0300 => Some(ThreatId::SSL_VERSION),
            0x0301 => Some(ThreatId::TLS_1_0),
            0x0302 => Some(ThreatId::TLS_1_1),
            _ => None,
        }
    }

    /// Whether all after the server's hello is encrypted.
    pub(super) fn encrypts_at_once(self) -> bool {
        self > Self::TLS_1_2
    }

    /// A version in a list of them; not the made-up ones that keep servers tolerant.
    fn listed(value: u16) -> Option<Self> {
        match value {
            0x0300..=0x03ff => Some(Self(value)),
            0x7f00..=0x7fff => Some(Self::TLS_1_3),
            _ => None,
        }
    }
}

/// What a client's hello says.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct ClientHello {
    /// The highest version offered.
    pub(super) version: Option<Version>,
    pub(super) server_name: Option<Box<str>>,
    /// The first protocol offered.
    pub(super) protocol: Option<Box<str>>,
}

/// Reads a client's hello; names only if the message is whole and nothing follows.
pub(super) fn client(message: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader::new(message);
    if reader.u8()? != CLIENT_HELLO {
        return None;
    }
    reader.be24()?;
    let version = Version(reader.be16()?);
    let plain = ClientHello { version: Some(version), ..ClientHello::default() };
    Some(client_rest(reader, version).unwrap_or(plain))
}

/// What follows the version.
fn client_rest(mut reader: Reader<'_>, version: Version) -> Option<ClientHello> {
    let mut hello = ClientHello { version: Some(version), ..ClientHello::default() };
    reader.take(32)?;
    reader.block8()?;
    reader.block16()?;
    reader.block8()?;
    if reader.is_empty() {
        return Some(hello);
    }
    let extensions = reader.block16().filter(|_| reader.is_empty())?;
    let (mut names, mut protocols, mut versions) = (None, None, None);
    walk(extensions, |kind, body| {
        let slot = match kind {
            SERVER_NAME => &mut names,
            ALPN => &mut protocols,
            SUPPORTED_VERSIONS => &mut versions,
            _ => return,
        };
        slot.get_or_insert(body);
    })?;
    hello.server_name = names.and_then(server_name);
    hello.protocol = protocols.and_then(first_protocol);
    if let Some(offered) = versions {
        hello.version = highest(offered).or(hello.version);
    }
    Some(hello)
}

/// Reads a server's hello: the version it chose.
pub(super) fn server(message: &[u8]) -> Option<Version> {
    let mut reader = Reader::new(message);
    if reader.u8()? != SERVER_HELLO {
        return None;
    }
    reader.be24()?;
    let version = Version(reader.be16()?);
    Some(chosen(reader).unwrap_or(version))
}

/// The version that an extension of the server's hello gives.
fn chosen(mut reader: Reader<'_>) -> Option<Version> {
    reader.take(32)?;
    reader.block8()?;
    reader.take(3)?;
    let mut version = None;
    walk(reader.block16()?, |kind, mut body| {
        if kind == SUPPORTED_VERSIONS {
            version = body.be16().and_then(Version::listed);
        }
    })?;
    version
}

/// Calls `each` with every extension; `None` if they are malformed or too many.
fn walk<'a>(mut extensions: Reader<'a>, mut each: impl FnMut(u16, Reader<'a>)) -> Option<()> {
    for _ in 0..MAX_EXTENSIONS {
        if extensions.is_empty() {
            return Some(());
        }
        let kind = extensions.be16()?;
        each(kind, extensions.block16()?);
    }
    None
}

/// The first host name of the extension's list.
fn server_name(mut extension: Reader<'_>) -> Option<Box<str>> {
    let mut list = extension.block16().filter(|_| extension.is_empty())?;
    while !list.is_empty() {
        let kind = list.u8()?;
        let text = list.block16()?.rest();
        if kind == 0 {
            return name(text.strip_suffix(b".").unwrap_or(text), MAX_NAME);
        }
    }
    None
}

/// The first protocol of the extension's list that is text.
fn first_protocol(mut extension: Reader<'_>) -> Option<Box<str>> {
    let mut list = extension.block16().filter(|_| extension.is_empty())?;
    while !list.is_empty() {
        let text = list.block8()?.rest();
        if let Some(text) = graphic(text) {
            return Some(text.into());
        }
    }
    None
}

/// The highest version of the extension's list.
fn highest(mut extension: Reader<'_>) -> Option<Version> {
    let mut list = extension.block8().filter(|_| extension.is_empty())?;
    let mut highest = None;
    while !list.is_empty() {
        highest = highest.max(Version::listed(list.be16()?));
    }
    highest
}
