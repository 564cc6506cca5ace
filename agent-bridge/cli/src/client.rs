//! One request to the bridge, over TCP or a unix socket.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, http::request};
use hyper_util::rt::TokioIo;
use outrider_api::{ErrorBody, ExplainQuery, paths};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// The bridge waits for proxies up to 5 s; a busy node may take a little longer.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Largest answer taken.
const MAX_ANSWER: usize = 256 << 20;
/// Where the bridge listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/outrider/api.sock";
/// Where else.
const DEFAULT_ADDRESS: &str = "127.0.0.1:15180";

/// A bridge's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        let authority = text
            .strip_prefix("http://")
            .unwrap_or(text)
            .trim_end_matches('/');
        let port = authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if authority.contains('/') || port.is_none() {
            return Err("write unix:PATH, http://HOST:PORT or HOST:PORT".into());
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// Why there is no answer to print.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No bridge could be asked.
    Unreachable(String),
    /// The bridge said no, or something that makes no sense.
    Refused(String),
    /// The answer could not be printed.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 3,
            Self::Refused(_) | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what) | Self::Refused(what) => f.write_str(what),
            Self::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Asks one bridge, the first that can be connected to.
#[derive(Debug)]
pub(crate) struct Client {
    targets: Vec<Target>,
    token: Option<String>,
}

/// A connection.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    /// Asks `bridge`, or where bridges are by default; `token` is sent over TCP only.
    pub(crate) fn new(bridge: Option<&Target>, token: Option<String>) -> Self {
        let defaults =
            || vec![Target::Unix(DEFAULT_SOCKET.into()), Target::Tcp(DEFAULT_ADDRESS.into())];
        let targets = bridge.map_or_else(defaults, |target| vec![target.clone()]);
        Self { targets, token }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| refused(&error))?;
        self.exchange(Method::PUT, path, body.into()).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let (target, stream) = self.connect().await?;
        let request = self
            .request(target, path)
            .method(method)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| refused(&error))?;
        let asked = async {
            match stream {
                Stream::Unix(stream) => send(stream, request).await,
                Stream::Tcp(stream) => send(stream, request).await,
            }
        };
        let Ok(answer) = timeout(ANSWER_TIME, asked).await else {
            let seconds = ANSWER_TIME.as_secs();
            return Err(Failure::Unreachable(format!("{target} did not answer in {seconds} s")));
        };
        let (status, body) =
            answer.map_err(|error| Failure::Unreachable(format!("{target}: {error}")))?;
        read(status, &body)
    }

    /// The beginning of a request, with the token where it belongs.
    pub(crate) fn request(&self, target: &Target, path: &str) -> request::Builder {
        let (host, token) = match target {
            Target::Tcp(authority) => (authority.as_str(), self.token.as_ref()),
            Target::Unix(_) => ("localhost", None),
        };
        let request = Request::builder().uri(path).header("host", host);
        match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Connects to the first target that answers.
    pub(crate) async fn connect(&self) -> Result<(&Target, Stream), Failure> {
        let mut tried = Vec::new();
        for target in &self.targets {
            let stream = match target {
                Target::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Target::Tcp(authority) => TcpStream::connect(authority).await.map(Stream::Tcp),
            };
            match stream {
                Ok(stream) => return Ok((target, stream)),
                Err(error) => tried.push(format!("{target} ({error})")),
            }
        }
        Err(Failure::Unreachable(format!(
            "no bridge at {}; is `outrider-agent-bridge bridge` running on this node? \
             Name another one with --bridge, or use sudo if the socket is root's",
            tried.join(" or ")
        )))
    }
}

type SendError = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), SendError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
    let (answer, _closed) = tokio::join!(exchange, connection);
    answer
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &Bytes) -> Result<T, Failure> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| refused(&error));
    }
    Err(Failure::Refused(said(status, body)))
}

/// What an answer that is not a success says.
pub(crate) fn said(status: StatusCode, body: &[u8]) -> String {
    serde_json::from_slice::<ErrorBody>(body).map_or_else(
        |_not_ours| format!("the bridge answered {status}; is that address a bridge?"),
        |said| said.error,
    )
}

fn refused(error: &dyn fmt::Display) -> Failure {
    Failure::Refused(format!("the bridge's answer makes no sense: {error}"))
}

/// Appends the parameters that have a value.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = path.to_owned();
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str(&format!("{name}={}", encode(value)));
        }
    }
    text
}

/// Path of a workload's mode.
pub(crate) fn mode_path(workload: &str) -> String {
    paths::MODE.replace("{name}", &encode(workload))
}

/// Path of an explanation.
pub(crate) fn explain_path(query: &ExplainQuery) -> String {
    with_query(
        paths::EXPLAIN,
        &[
            ("client", Some(&query.client)),
            ("server", Some(&query.server)),
            ("port", Some(&query.port.to_string())),
            ("app", query.app.as_deref()),
        ],
    )
}

/// Percent-encodes all but unreserved characters.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_of_both_kinds() {
        assert_eq!("unix:/a/b".parse(), Ok(Target::Unix("/a/b".into())));
        assert_eq!("unix:///a/b".parse(), Ok(Target::Unix("/a/b".into())));
        assert_eq!("http://h:1/".parse(), Ok(Target::Tcp("h:1".into())));
        assert_eq!("[::1]:15180".parse(), Ok(Target::Tcp("[::1]:15180".into())));
        assert!("https://h:1".parse::<Target>().is_err());
        assert!("host".parse::<Target>().is_err());
    }

    #[test]
    fn names_are_encoded_into_paths() {
        assert_eq!(mode_path("default/cache"), "/v1/workloads/default%2Fcache/mode");
        let query =
            ExplainQuery { client: "a b".into(), server: "::1".into(), port: 6379, app: None };
        assert_eq!(explain_path(&query), "/v1/explain?client=a%20b&server=%3A%3A1&port=6379");
    }

    #[test]
    fn an_error_body_is_what_people_see() {
        let said = read::<u8>(StatusCode::NOT_FOUND, &Bytes::from_static(b"{\"error\":\"no\"}"));
        assert_eq!(said.unwrap_err().to_string(), "no");
        let foreign = read::<u8>(StatusCode::BAD_GATEWAY, &Bytes::from_static(b"<html>"));
        assert!(
            foreign
                .unwrap_err()
                .to_string()
                .contains("is that address a bridge?")
        );
    }

    #[tokio::test]
    async fn says_where_it_looked_when_nobody_answers() {
        let client = Client::new(Some(&Target::Unix("/nonexistent/api.sock".into())), None);
        let failure = client.get::<u8>("/").await.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("unix:/nonexistent/api.sock"), "{failure}");
    }
}
