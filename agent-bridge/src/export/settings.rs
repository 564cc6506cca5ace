//! Settings of the export.

use std::{
    fmt::{self, Debug},
    path::PathBuf,
    str::FromStr,
};

use hyper::Uri;

use super::{event::Kind, sink::Name};
use crate::settings::Reader;

/// Every setting, its default and what it is for, as `--help` shows them.
pub const HELP: [(&str, &str, &str); 9] = [
    ("OUTRIDER_EXPORT_KINDS", "threat,violation", "what is exported; also conversation"),
    ("OUTRIDER_EXPORT_RATE", "10", "events a minute per workload, kind, and threat or rule"),
    ("OUTRIDER_EXPORT_SPOOL", "16", "MiB of events that may wait for a sink"),
    ("OUTRIDER_EXPORT_FILE", "none", "file for JSON lines, - for standard output"),
    ("OUTRIDER_EXPORT_FILE_SIZE", "64", "MiB at which the file is rotated"),
    ("OUTRIDER_EXPORT_SYSLOG", "none", "tcp://HOST:PORT or tls://HOST:PORT, RFC 5424"),
    ("OUTRIDER_EXPORT_WEBHOOK", "none", "http:// or https:// URL to post batches to"),
    ("OUTRIDER_EXPORT_WEBHOOK_SECRET", "none", "file with the secret that batches are signed with"),
    ("OUTRIDER_EXPORT_CA", "the system's", "PEM file with the authorities of tls:// and https://"),
];

/// How all of them begin.
pub(crate) const PREFIX: &str = "OUTRIDER_EXPORT_";
/// Facility `local0`.
const FACILITY: u8 = 16;

/// What is exported, and where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportSettings {
    /// `OUTRIDER_EXPORT_KINDS`.
    pub kinds: Vec<Kind>,
    /// `OUTRIDER_EXPORT_RATE`: events a minute per workload, kind, and threat or rule.
    pub rate: usize,
    /// `OUTRIDER_EXPORT_SPOOL`, in bytes.
    pub spool: usize,
    /// `OUTRIDER_EXPORT_FILE`.
    pub file: Option<Place>,
    /// `OUTRIDER_EXPORT_FILE_SIZE`, in bytes.
    pub file_size: u64,
    /// `OUTRIDER_EXPORT_SYSLOG`.
    pub syslog: Option<SyslogTarget>,
    /// `OUTRIDER_EXPORT_WEBHOOK`.
    pub webhook: Option<WebhookTarget>,
    /// `OUTRIDER_EXPORT_WEBHOOK_SECRET`.
    pub webhook_secret: Option<PathBuf>,
    /// `OUTRIDER_EXPORT_CA`.
    pub ca: Option<PathBuf>,
}

impl ExportSettings {
    /// Reads them; mistakes are noted in the reader.
    pub(crate) fn read(env: &mut Reader<impl Fn(&str) -> Option<String>>) -> Self {
        let kinds = Kinds(vec![Kind::Threat, Kind::Violation]);
        Self {
            kinds: env.value("OUTRIDER_EXPORT_KINDS", kinds).0,
            rate: env.value("OUTRIDER_EXPORT_RATE", Within::<1, 1000>(10)).0,
            spool: env.value("OUTRIDER_EXPORT_SPOOL", Within::<1, 1024>(16)).0 << 20,
            file: env.option("OUTRIDER_EXPORT_FILE"),
            file_size: (env
                .value("OUTRIDER_EXPORT_FILE_SIZE", Within::<1, 4096>(64))
                .0 as u64)
                << 20,
            syslog: env.option("OUTRIDER_EXPORT_SYSLOG"),
            webhook: env.option("OUTRIDER_EXPORT_WEBHOOK"),
            webhook_secret: env.optional_path("OUTRIDER_EXPORT_WEBHOOK_SECRET"),
            ca: env.optional_path("OUTRIDER_EXPORT_CA"),
        }
    }

    /// Which sinks there are.
    #[must_use]
    pub fn sinks(&self) -> Vec<Name> {
        let there = [self.file.is_some(), self.syslog.is_some(), self.webhook.is_some()];
        Name::ALL
            .into_iter()
            .zip(there)
            .filter_map(|(name, there)| there.then_some(name))
            .collect()
    }
}

/// Where JSON lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// Standard output.
    Output,
    /// A file.
    Path(PathBuf),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Output),
            path if path.starts_with('/') => Ok(Self::Path(path.into())),
            _ => Err("must be an absolute path, or - for standard output"),
        }
    }
}

/// A syslog receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyslogTarget {
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Facility, 0 to 23.
    pub facility: u8,
}

impl FromStr for SyslogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "must be tcp://HOST:PORT or tls://HOST:PORT, with ?facility=0..23 or not";
        let uri: Uri = text.parse().map_err(|_error| FORM)?;
        let tls = match uri.scheme_str() {
            Some("tcp") => false,
            Some("tls") => true,
            _ => return Err(FORM),
        };
        let (host, port) = host(&uri).zip(uri.port_u16()).ok_or(FORM)?;
        let facility = match uri.query() {
            None => FACILITY,
            Some(query) => query
                .strip_prefix("facility=")
                .and_then(|number| number.parse().ok())
                .filter(|number| *number < 24)
                .ok_or(FORM)?,
        };
        if !matches!(uri.path(), "" | "/") {
            return Err(FORM);
        }
        Ok(Self { host, port, tls, facility })
    }
}

/// An HTTP receiver.
#[derive(Clone, Eq, PartialEq)]
pub struct WebhookTarget {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The `Host` header.
    pub authority: String,
    /// Path and query, which may hold a secret.
    pub path: String,
}

impl Debug for WebhookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}/…", self.authority)
    }
}

impl FromStr for WebhookTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be http://HOST[:PORT]/PATH or https://…, without user or password";
        let uri: Uri = text.parse().map_err(|_error| FORM)?;
        let (tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(FORM),
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let port = uri.port_u16().unwrap_or(port);
        let host = host(&uri).ok_or(FORM)?;
        Ok(Self { tls, host, port, authority, path })
    }
}

/// The host without brackets; `None` if there is none, or if it comes with a user.
fn host(uri: &Uri) -> Option<String> {
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_matches(['[', ']']);
    (!host.is_empty()).then(|| host.to_owned())
}

/// A number between two bounds, both included.
struct Within<const LEAST: usize, const MOST: usize>(usize);

impl<const LEAST: usize, const MOST: usize> FromStr for Within<LEAST, MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text
            .parse()
            .ok()
            .filter(|number| (LEAST..=MOST).contains(number));
        number
            .map(Self)
            .ok_or_else(|| format!("must be a number from {LEAST} to {MOST}"))
    }
}

struct Kinds(Vec<Kind>);

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = Vec::new();
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            let kind = Kind::ALL.into_iter().find(|kind| kind.label() == word);
            kinds.push(kind.ok_or_else(|| format!("{word:?} is no kind of event"))?);
        }
        if kinds.is_empty() { Err("names no kind of event".into()) } else { Ok(Self(kinds)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn read(pairs: &[(&str, &str)]) -> Result<ExportSettings, usize> {
        let find = |key: &str| pairs.iter().find(|(name, _)| *name == key);
        Settings::read(|key| find(key).map(|(_, text)| (*text).to_owned()))
            .map(|settings| settings.export)
            .map_err(|error| error.0.len())
    }

    #[test]
    fn nothing_is_exported_unless_a_sink_is_named() {
        let settings = read(&[]).unwrap();
        assert!(settings.sinks().is_empty());
        assert_eq!((settings.rate, settings.spool, settings.file_size), (10, 16 << 20, 64 << 20));
    }

    #[test]
    fn targets_are_taken_apart() {
        let settings = read(&[
            ("OUTRIDER_EXPORT_KINDS", "threat, conversation"),
            ("OUTRIDER_EXPORT_FILE", "-"),
            ("OUTRIDER_EXPORT_SYSLOG", "tls://[fd00::1]:6514?facility=13"),
            ("OUTRIDER_EXPORT_WEBHOOK", "https://hooks.example/in?token=hunter2"),
        ])
        .unwrap();
        assert_eq!(settings.sinks(), Name::ALL);
        assert_eq!(settings.kinds, [Kind::Threat, Kind::Conversation]);
        let syslog = settings.syslog.clone().unwrap();
        assert_eq!((syslog.host.as_str(), syslog.port, syslog.facility), ("fd00::1", 6514, 13));
        let webhook = settings.webhook.clone().unwrap();
        assert_eq!((webhook.port, webhook.path.as_str()), (443, "/in?token=hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"), "the log must not have it");
    }

    #[test]
    fn every_mistake_is_reported() {
        let mistakes = read(&[
            ("OUTRIDER_EXPORT_KINDS", "threats"),
            ("OUTRIDER_EXPORT_RATE", "0"),
            ("OUTRIDER_EXPORT_SPOOL", "1025"),
            ("OUTRIDER_EXPORT_FILE", "events"),
            ("OUTRIDER_EXPORT_FILE_SIZE", "x"),
            ("OUTRIDER_EXPORT_SYSLOG", "udp://host:514"),
            ("OUTRIDER_EXPORT_WEBHOOK", "http://user:password@host/"),
            ("OUTRIDER_EXPORT_WEBHOOK_SECRET", "secret"),
            ("OUTRIDER_EXPORT_CA", "ca.pem"),
        ]);
        assert_eq!(mistakes, Err(9));
        for syslog in ["tcp://host", "tcp://host:1/path", "tcp://host:1?facility=24", "host:1"] {
            assert_eq!(read(&[("OUTRIDER_EXPORT_SYSLOG", syslog)]), Err(1), "{syslog}");
        }
    }
}
