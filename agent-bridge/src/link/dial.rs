//! One connection to the controller: TLS 1.3, its authority and our token read anew.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    LinkSettings,
    authority::{self, Place},
};

/// How long it may take to connect, the handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Without a word for so long the controller is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);

/// Connects to `target`; the name in the certificate is the setting's wherever that leads.
pub(super) async fn connect(settings: &LinkSettings, target: &str) -> io::Result<Channel> {
    let text = settings.ca.read(settings.kube.as_ref()).await?;
    let config = config(&settings.ca, &text)?;
    let name = ServerName::try_from(settings.name.clone()).map_err(io::Error::other)?;
    let reach = async {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let stream = timeout(CONNECT_TIME, Box::pin(reach)).await??;
    Box::pin(over(stream)).await
}

/// What `authorization` says.
pub(super) fn bearer(token: &Path) -> io::Result<MetadataValue<Ascii>> {
    let odd = || Place::File(token.to_owned()).odd("is no token");
    let text = String::from_utf8(authority::file(token)?).map_err(|_not_text| odd())?;
    let value = MetadataValue::try_from(format!("Bearer {}", text.trim()));
    let mut value = value.map_err(|_odd_letters| odd())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Speaks HTTP/2 over the stream, once.
async fn over(stream: TlsStream<TcpStream>) -> io::Result<Channel> {
    let stream = Arc::new(parking_lot::Mutex::new(Some(stream)));
    let once = service_fn(move |_: Uri| {
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        let stream = stream.lock().take();
        std::future::ready(stream.map(TokioIo::new).ok_or_else(ended))
    });
    // The scheme is that of what is spoken inside.
    Endpoint::from_static("http://controller")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIME)
        .keep_alive_while_idle(true)
        .connect_with_connector(once)
        .await
        .map_err(io::Error::other)
}

fn config(ca: &Place, text: &[u8]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| ca.odd(error))?;
        roots.add(certificate).map_err(|error| ca.odd(error))?;
    }
    if roots.is_empty() {
        return Err(ca.odd("holds no certificate"));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
