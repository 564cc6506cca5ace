//! Certificates of our own making. Each has an authority of its own that signs it and nothing else: the
//! authority's key is forgotten at once. A new one is served only after its authority has been made known
//! beside the old one, so that whoever verifies has both when the change comes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::time::sleep;

use super::{
    bundle::Bundle,
    certificate::{self, Certificate, Loaded},
};
use crate::node::threats::base64;

/// How long certificates live.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Life of a certificate.
    pub life: Duration,
    /// Age at which the next one is made.
    pub renew: Duration,
    /// From when an authority is made known until certificates of it are served.
    pub settle: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { life: 60 * DAY, renew: 20 * DAY, settle: Duration::from_secs(120) }
    }
}

/// A certificate and who vouches for it.
#[derive(Debug)]
pub(crate) struct Pair {
    /// To be served.
    pub(crate) loaded: Loaded,
    /// Its authority, PEM.
    pub(crate) authority: String,
}

/// What makes and renews them.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(super) names: Vec<String>,
    pub(super) client_ca: Option<PathBuf>,
    /// File in which authorities are made known.
    pub(super) file: Option<PathBuf>,
    /// The configurations in which they are.
    pub(super) bundle: Option<Arc<Bundle>>,
    pub(crate) terms: Terms,
}

impl Authority {
    /// One that makes nothing known by itself, and asks nobody for a certificate.
    pub(crate) fn plain(names: Vec<String>, terms: Terms) -> Self {
        Self { names, client_ca: None, file: None, bundle: None, terms }
    }

    /// A new certificate with an authority of its own.
    pub(crate) fn make(&self) -> io::Result<Pair> {
        let now = SystemTime::now();
        // Clocks of other machines may be behind ours.
        let from = now.checked_sub(Duration::from_secs(300)).unwrap_or(now);
        let until = now.checked_add(self.terms.life).unwrap_or(now);
        let number = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |age| age.as_micros());
        let mut ca = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(DnType::CommonName, format!("outrider {number}"));
        (ca.not_before, ca.not_after) = (from.into(), until.into());
        let ca_key = KeyPair::generate().map_err(io::Error::other)?;
        let ca_made = ca.self_signed(&ca_key).map_err(io::Error::other)?;
        let mut leaf = CertificateParams::new(self.names.clone()).map_err(io::Error::other)?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = Issuer::new(ca, ca_key);
        let made = leaf.signed_by(&key, &issuer).map_err(io::Error::other)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let chain = vec![made.der().clone()];
        let loaded = certificate::ready(chain, key, &self.names, self.client_ca.as_deref())?;
        Ok(Pair { loaded, authority: pem(ca_made.der()) })
    }

    /// Makes the authority of the first one known; in the configurations, as soon as they are kept.
    pub(super) fn begin(&self, first: &Pair) -> io::Result<()> {
        if let Some(bundle) = &self.bundle {
            bundle.set(vec![first.authority.clone()]);
        }
        self.write(&[first])
    }

    /// Makes the authorities of these known.
    async fn publish(&self, pairs: &[&Pair]) -> io::Result<()> {
        self.write(pairs)?;
        let Some(bundle) = &self.bundle else { return Ok(()) };
        let authorities = pairs.iter().map(|pair| pair.authority.clone());
        bundle
            .publish(authorities.collect())
            .await
            .map_err(|why| io::Error::other(format!("caBundle: {why}")))
    }

    fn write(&self, pairs: &[&Pair]) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let bundle: String = pairs.iter().map(|pair| &*pair.authority).collect();
        write(path, &bundle)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    async fn next(&self, current: &Pair) -> io::Result<Pair> {
        let next = self.make()?;
        self.publish(&[current, &next]).await?;
        Ok(next)
    }

    /// Renews for ever. What cannot be made known is not served.
    pub(super) async fn renew(&self, mut current: Pair, served: &Certificate) {
        loop {
            sleep(self.terms.renew).await;
            let next = loop {
                match self.next(&current).await {
                    Ok(next) => break next,
                    Err(error) => {
                        tracing::error!(%error, "no new certificate; keeping the old");
                        sleep(self.terms.settle).await;
                    }
                }
            };
            sleep(self.terms.settle).await;
            served.replace(next.loaded.clone());
            // The old authority stays known until the next change: somebody may still hold the old answer.
            current = next;
        }
    }
}

/// In one step, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

/// PEM of a certificate.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = base64(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &*text;
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
