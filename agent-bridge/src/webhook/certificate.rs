//! The certificate that is served. It can be replaced at any time: who connects gets the one that is current
//! then, connections that are there keep what they have.

use std::{io, path::Path, sync::Arc, time::Duration};

use outrider_telemetry::unix_seconds;
use parking_lot::RwLock;
use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{counts::Counts, settings::Given, validity::Validity};
use crate::stamp::Stamp;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Before its end from which a certificate is warned about.
const SOON: u64 = 30 * 24 * 3600;
/// The protocols spoken inside, as TLS names them.
pub(super) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate with its key, ready to be served.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// For who connects.
    pub(crate) config: Arc<ServerConfig>,
    /// When it is valid.
    pub(crate) validity: Validity,
    /// Names among those we are called by that it does not have.
    pub(crate) lacking: Vec<String>,
}

/// The one in use.
#[derive(Debug)]
pub(super) struct Certificate {
    current: RwLock<Loaded>,
    counts: Counts,
}

impl Certificate {
    pub(super) fn new(loaded: Loaded, counts: Counts) -> Self {
        let certificate = Self { current: RwLock::new(loaded.clone()), counts };
        certificate.replace(loaded);
        certificate
    }

    /// What is served now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    /// Serves this one from now on.
    pub(super) fn replace(&self, loaded: Loaded) {
        let until = i64::try_from(loaded.validity.until).unwrap_or(i64::MAX);
        self.counts.expiry.set(until);
        self.counts.loaded(true);
        *self.current.write() = loaded;
        match self.wrong(unix_seconds()) {
            Some(wrong) => tracing::error!("the certificate is of no use: {wrong}"),
            None => tracing::info!(valid_until = until, "certificate in use"),
        }
    }

    /// Why nobody who checks it takes it.
    pub(super) fn wrong(&self, now: u64) -> Option<String> {
        let current = self.current.read();
        let Validity { from, until } = current.validity;
        if now > until {
            Some(format!("it expired {}", ago(now - until)))
        } else if now < from {
            Some(format!(
                "it is not valid before {from} seconds since the epoch; is the clock right?"
            ))
        } else if current.lacking.is_empty() {
            None
        } else {
            Some(format!("it is not for {}", current.lacking.join(", ")))
        }
    }

    /// Follows the files for ever.
    pub(super) async fn follow(&self, given: &Given, names: &[String], client_ca: Option<&Path>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = stamps(given);
        let mut warned = false;
        loop {
            looks.tick().await;
            let now = stamps(given);
            if now != last {
                // Half a renewal cannot be used; its other half changes the stamp again.
                last = now;
                match load(given, names, client_ca) {
                    Ok(loaded) => self.replace(loaded),
                    Err(error) => {
                        self.counts.loaded(false);
                        tracing::error!(%error, "changed certificate cannot be used; keeping the old");
                    }
                }
                warned = false;
            }
            let left = self
                .current
                .read()
                .validity
                .until
                .saturating_sub(unix_seconds());
            if left < SOON && !warned {
                warned = true;
                tracing::warn!(
                    seconds = left,
                    "the certificate ends soon, and nobody has renewed it"
                );
            }
        }
    }
}

/// Reads the files.
pub(super) fn load(
    given: &Given,
    names: &[String],
    client_ca: Option<&Path>,
) -> io::Result<Loaded> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&given.cert)
        .and_then(Iterator::collect)
        .map_err(|why| bad(&given.cert, why))?;
    if chain.is_empty() {
        return Err(bad(&given.cert, "no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&given.key).map_err(|why| bad(&given.key, why))?;
    ready(chain, key, names, client_ca).map_err(|why| bad(&given.cert, why))
}

/// Makes a chain and its key ready to be served.
pub(super) fn ready(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    names: &[String],
    client_ca: Option<&Path>,
) -> io::Result<Loaded> {
    let first = chain
        .first()
        .ok_or_else(|| io::Error::other("no certificate"))?;
    let validity = Validity::read(first).ok_or_else(|| io::Error::other("no times in it"))?;
    let parsed = ParsedCertificate::try_from(first).map_err(io::Error::other)?;
    let lacking = names.iter().filter(|name| {
        let name = ServerName::try_from(name.as_str());
        !name.is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    });
    let lacking = lacking.cloned().collect();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in CertificateDer::pem_file_iter(path).map_err(|why| bad(path, why))? {
                let root = root.map_err(|why| bad(path, why))?;
                roots.add(root).map_err(|why| bad(path, why))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|why| bad(path, why))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let served = builder.with_single_cert(chain, key);
    let mut config = served.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => io::Error::other("the key is of another certificate"),
        other => io::Error::other(other),
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), validity, lacking })
}

fn stamps(given: &Given) -> [Option<Stamp>; 2] {
    [&given.cert, &given.key].map(|path| Stamp::at(path))
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{seconds} s ago"),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}
