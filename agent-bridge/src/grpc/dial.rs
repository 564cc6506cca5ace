//! Connections out, with mutual TLS: each is made with the certificates that are current then.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::tls::Certificates;

/// How long it may take to connect, the handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// A channel to `target`, `host:port`, that connects when it is used and again when it has to. The
/// peer must show a certificate for `name`.
///
/// # Errors
/// When target or name cannot be one.
pub fn channel(target: &str, name: &str, certificates: Arc<Certificates>) -> io::Result<Channel> {
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{target}: {error}"))
    };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| invalid(&error))?;
    // The scheme is that of what is spoken inside; the connector does the rest.
    let endpoint = Endpoint::from_shared(format!("http://{target}"))
        .map_err(|error| invalid(&error))?
        .connect_timeout(CONNECT_TIME);
    let target: Arc<str> = target.into();
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (target, name) = (Arc::clone(&target), name.clone());
        let config = certificates.current().client;
        async move { connect(&target, name, config).await.map(TokioIo::new) }
    })))
}

async fn connect(
    target: &str,
    name: ServerName<'static>,
    config: Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}
