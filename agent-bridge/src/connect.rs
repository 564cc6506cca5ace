//! Connections out, in the clear or in TLS: to receivers of events, to the cluster's API server.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::spawn_blocking,
};
use tokio_rustls::TlsConnector;

const CA: &str = "OUTRIDER_EXPORT_CA";
const NO_CA: &str = "not set, and the system has no authorities";
/// Where distributions keep the certificates of public authorities.
const SYSTEM_CA: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The system, or the other end's TLS, says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file that a setting names cannot be used.
    #[error("{file}: {reason}")]
    Setting {
        /// Which.
        file: String,
        /// Why.
        reason: String,
    },
}

/// What is common to both.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Stream for S {}

/// How to reach a receiver.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Name or address, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Whether TLS is spoken.
    pub(crate) tls: bool,
    /// The authorities that may vouch for it; those of the system otherwise.
    pub(crate) ca: Option<PathBuf>,
    /// The connection fails if the other end's system has not confirmed bytes for so long.
    pub(crate) lost_after: Option<Duration>,
}

impl Peer {
    /// Connects. Certificates are always verified; their authorities are read anew each time.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if let Some(limit) = self.lost_after {
            let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            setsockopt(&stream, TcpUserTimeout, &limit).map_err(io::Error::from)?;
        }
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let unusable = |reason: String| ConnectError::Setting { file: self.host.clone(), reason };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|error| unusable(error.to_string()))?;
        let ca = self.ca.clone();
        let config = spawn_blocking(move || config(ca))
            .await
            .map_err(io::Error::other)??;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// What TLS needs to know.
fn config(ca: Option<PathBuf>) -> Result<ClientConfig, ConnectError> {
    let file = match ca.or_else(system_ca) {
        Some(path) => path.display().to_string(),
        None => return Err(ConnectError::Setting { file: CA.into(), reason: NO_CA.into() }),
    };
    let unusable = |reason: String| ConnectError::Setting { file: file.clone(), reason };
    let certificates = CertificateDer::pem_file_iter(&file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(unusable("holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn system_ca() -> Option<PathBuf> {
    SYSTEM_CA
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}
