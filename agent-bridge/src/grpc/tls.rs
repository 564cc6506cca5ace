//! Certificates of both ends, read again when their files change.
//!
//! Whoever connects gets what is current then; connections that are there keep what they have. Files
//! that cannot be used, half a renewal for instance, change nothing and are tried again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use webpki::EndEntityCert;

use crate::stamp::Stamp;

/// The protocol that is spoken inside, as TLS names it.
const ALPN: &[u8] = b"h2";

/// The name in the certificates of all components, as NeuVector makes them.
const DEFAULT_PEER: &str = "NeuVector";

/// Where the certificates are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// Our chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who signs our peers, PEM.
    pub ca: PathBuf,
    /// The name that our peers' certificates are for; that of ours, if it is not said.
    pub peer: Option<String>,
}

/// What both ends are set up with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For who connects to us; he must show a certificate.
    pub server: Arc<ServerConfig>,
    /// For whom we connect to.
    pub client: Arc<ClientConfig>,
    /// The name that our peers' certificates are for.
    pub peer: String,
}

/// Certificates that follow their files.
#[derive(Debug)]
pub struct Certificates {
    files: Files,
    current: Mutex<(Stamps, Loaded)>,
}

/// Tells one state of the files from another.
type Stamps = [Option<Stamp>; 3];

impl Certificates {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When one cannot be read, or they do not belong together.
    pub fn load(files: Files) -> io::Result<Self> {
        let stamps = files.stamps();
        let loaded = files.load()?;
        Ok(Self { files, current: Mutex::new((stamps, loaded)) })
    }

    /// What is to be used now. Looks at the files, which are small and local.
    pub fn current(&self) -> Loaded {
        let stamps = self.files.stamps();
        let mut current = self.current.lock();
        if current.0 != stamps {
            match self.files.load() {
                Ok(loaded) => {
                    tracing::info!(cert = %self.files.cert.display(), "certificates read again");
                    *current = (stamps, loaded);
                }
                Err(error) => {
                    tracing::error!(%error, "changed certificates cannot be used; keeping the old");
                }
            }
        }
        current.1.clone()
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.cert, &self.key, &self.ca].map(|path| Stamp::at(path))
    }

    fn load(&self) -> io::Result<Loaded> {
        let chain = certificates(&self.cert)?;
        let peer = self.peer.clone().or_else(|| common_name(chain.first()?));
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|why| bad(&self.key, why))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.ca)? {
            roots.add(root).map_err(|why| bad(&self.ca, why))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|why| bad(&self.ca, why))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_client_cert_verifier(shown)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|why| bad(&self.cert, why))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|why| bad(&self.cert, why))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        let peer = peer.unwrap_or_else(|| DEFAULT_PEER.to_owned());
        Ok(Loaded { server: Arc::new(server), client: Arc::new(client), peer })
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|why| bad(path, why))?;
    if found.is_empty() { Err(bad(path, "no certificate in it")) } else { Ok(found) }
}

/// The common name in a certificate's subject, if it is one that a peer could have.
fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    /// Identifies the attribute, in DER.
    const ATTRIBUTE: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let cert = EndEntityCert::try_from(cert).ok()?;
    let subject = cert.subject();
    let at = subject
        .windows(ATTRIBUTE.len())
        .position(|found| found == ATTRIBUTE)?;
    let (_, [_tag, length, rest @ ..]) = subject.split_at_checked(at + ATTRIBUTE.len())? else {
        return None;
    };
    // A name has fewer bytes than need a longer form of the length.
    let name = rest.get(..usize::from(*length))?;
    let name = std::str::from_utf8(name).ok()?;
    matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_))).then(|| name.to_owned())
}

/// Whether the first certificate that a peer showed is for that name.
///
/// # Errors
/// Why not.
pub(super) fn is_for(
    shown: Option<&[CertificateDer<'_>]>,
    name: &str,
) -> Result<(), rustls::Error> {
    let cert = shown
        .and_then(<[_]>::first)
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let name = ServerName::try_from(name)
        .map_err(|_not_one| rustls::Error::General(format!("{name:?} is no name for a peer")))?;
    verify_server_name(&ParsedCertificate::try_from(cert)?, &name)
}

fn bad(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}
