//! Questions to the workload by HTTP, HTTPS and gRPC, as the kubelet puts them.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    body::Bytes,
    http::{
        HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri,
        header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, LOCATION, TE, USER_AGENT},
    },
};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_model::names;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::Dialer;
use crate::settings::{AppAsk, AppProbe, Header};

/// Redirections that are followed, on the same host.
const MAX_REDIRECTS: usize = 10;
/// Largest answer of the health service.
const MAX_MESSAGE: usize = 4 << 10;
/// Head of an answer that is held at most.
const MAX_HEAD: usize = 32 << 10;

/// Asks, and says what the kubelet would have seen.
pub(super) async fn ask(
    dialer: &Dialer,
    probe: &AppProbe,
    at: SocketAddr,
    agent: &HeaderValue,
) -> io::Result<StatusCode> {
    match &probe.what {
        AppAsk::Grpc(service) => {
            let stream = dialer.dial(at).await?;
            let serves = Box::pin(grpc(stream, at, service, agent)).await?;
            Ok(if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
        }
        AppAsk::Http { path, tls } => {
            let headers = headers(&probe.headers, agent);
            let mut place = Place { at, tls: *tls, path: path.clone() };
            for _ in 0..=MAX_REDIRECTS {
                let stream = dialer.dial(place.at).await?;
                let (status, location) = Box::pin(http(stream, &place, &headers)).await?;
                let Some(location) = location.filter(|_| status.is_redirection()) else {
                    return Ok(status);
                };
                match place.follow(&location) {
                    Next::Here(next) => place = next,
                    // The kubelet does not go there, and takes the answer for a good one.
                    Next::Elsewhere => return Ok(StatusCode::OK),
                    Next::Nowhere => return Ok(StatusCode::SERVICE_UNAVAILABLE),
                }
            }
            Ok(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// Where a question by HTTP goes.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    at: SocketAddr,
    tls: bool,
    path: String,
}

/// Where a redirection leads.
#[derive(Debug, Eq, PartialEq)]
enum Next {
    Here(Place),
    Elsewhere,
    Nowhere,
}

impl Place {
    fn follow(&self, location: &str) -> Next {
        let Ok(to) = location.parse::<Uri>() else {
            // Relative to where we are.
            let base = self.path.split('?').next().unwrap_or_default();
            let base = base.rsplit_once('/').map_or("", |(base, _)| base);
            return self.here(self.at.port(), self.tls, format!("{base}/{location}"));
        };
        let path = to.path_and_query().map_or("/", |path| path.as_str());
        let Some(host) = to.host() else {
            return self.here(self.at.port(), self.tls, path.to_owned());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.parse() != Ok(self.at.ip()) {
            return Next::Elsewhere;
        }
        let tls = to.scheme_str() == Some("https");
        let port = to.port_u16().unwrap_or(if tls { 443 } else { 80 });
        self.here(port, tls, path.to_owned())
    }

    fn here(&self, port: u16, tls: bool, path: String) -> Next {
        if names::OWN_PORTS.contains(&port) || path.parse::<Uri>().is_err() {
            return Next::Nowhere;
        }
        Next::Here(Self { at: SocketAddr::new(self.at.ip(), port), tls, path })
    }
}

/// Headers as the kubelet would send them.
fn headers(said: &[Header], agent: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, agent.clone());
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for Header(name, _) in said {
        if let Ok(name) = name.parse::<HeaderName>() {
            headers.remove(name);
        }
    }
    for Header(name, value) in said {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.append(name, value);
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

async fn http(
    stream: TcpStream,
    place: &Place,
    headers: &HeaderMap,
) -> io::Result<(StatusCode, Option<String>)> {
    let mut request = Request::get(&place.path)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let host = place.at.to_string().parse().map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
    }
    if place.tls {
        let name = ServerName::IpAddress(place.at.ip().into());
        let stream = TlsConnector::from(any_certificate()?)
            .connect(name, stream)
            .await?;
        Box::pin(exchange(stream, request)).await
    } else {
        Box::pin(exchange(stream, request)).await
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> io::Result<(StatusCode, Option<String>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ended = &mut connection => answer.await,
    };
    let answer = answer.map_err(io::Error::other)?;
    let location = answer.headers().get(LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    // What else it says stays in the pod.
    Ok((answer.status(), location.map(str::to_owned)))
}

/// Whether `grpc.health.v1.Health/Check` says that the service serves.
async fn grpc(
    stream: TcpStream,
    at: SocketAddr,
    service: &str,
    agent: &HeaderValue,
) -> io::Result<bool> {
    let length = u8::try_from(service.len()).map_err(io::Error::other)?;
    let mut message = Vec::new();
    if length > 0 {
        // Field 1, a text; a length below 128 is one byte.
        message.extend([0x0a, length]);
        message.extend(service.bytes());
    }
    let size = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut frame = vec![0];
    frame.extend(size.to_be_bytes());
    frame.extend(message);
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, agent)
        .body(Full::<Bytes>::from(frame))
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_MESSAGE).collect().await;
        let body = body.map_err(io::Error::other)?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"));
        let status = status.or_else(|| parts.headers.get("grpc-status"));
        let good = status.is_some_and(|status| status.as_bytes() == b"0");
        Ok(good && parts.status == StatusCode::OK && serves(&body.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ended = &mut connection => exchange.await,
    }
}

/// Whether a framed answer has `SERVING` (1) in field 1.
fn serves(frame: &[u8]) -> bool {
    frame.strip_prefix(&[0, 0, 0, 0, 2]) == Some(&[0x08, 1])
}

/// Takes any certificate, as the kubelet does: who answers is in the pod in any case.
fn any_certificate() -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = AnyCertificate(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_stay_in_the_pod_and_off_our_ports() {
        let at = "10.0.0.9:8080".parse().unwrap();
        let place = Place { at, tls: false, path: "/a/ready?x".into() };
        let here = |port: u16, tls, path: &str| {
            let at = SocketAddr::new(at.ip(), port);
            Next::Here(Place { at, tls, path: path.into() })
        };
        for (location, next) in [
            ("/b", here(8080, false, "/b")),
            ("http://10.0.0.9:8080/b?y", here(8080, false, "/b?y")),
            ("https://10.0.0.9:8443/", here(8443, true, "/")),
            ("https://10.0.0.9/", here(443, true, "/")),
            ("http://other.example/b", Next::Elsewhere),
            ("http://10.0.0.8:8080/b", Next::Elsewhere),
            ("http://10.0.0.9:15120/metrics", Next::Nowhere),
        ] {
            assert_eq!(place.follow(location), next, "{location}");
        }
    }

    #[test]
    fn only_serving_is_serving() {
        assert!(serves(&[0, 0, 0, 0, 2, 8, 1]));
        for frame in [&[0, 0, 0, 0, 2, 8, 2][..], &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[]] {
            assert!(!serves(frame), "{frame:?}");
        }
    }
}
