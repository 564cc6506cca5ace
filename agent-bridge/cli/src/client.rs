//! One request to the bridge, over TCP or a unix socket.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, http::request};
use hyper_util::rt::TokioIo;
use outrider_api::{ErrorBody, ExplainQuery, NEXT_CURSOR, paths};
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
    /// Whoever asks may not: a token is missing or wrong, or the socket is somebody else's.
    Forbidden(String),
    /// The answer could not be printed.
    Output(io::Error),
    /// What was typed makes no sense here.
    Usage(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 3,
            Self::Forbidden(_) => 4,
            Self::Usage(_) => 2,
            Self::Refused(_) | Self::Output(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what)
            | Self::Refused(what)
            | Self::Forbidden(what)
            | Self::Usage(what) => f.write_str(what),
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
        let answer = self.exchange(Method::GET, path, Bytes::new()).await?;
        answer.read()
    }

    /// A list to its end, page by page, or its first `limit` elements.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Option<u32>,
    ) -> Result<Vec<T>, Failure> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let had = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let left = limit.map(|limit| limit.saturating_sub(had).to_string());
            let page = [("limit", left.as_deref()), ("cursor", cursor.as_deref())];
            let path = with_query(path, &page);
            let answer = self.exchange(Method::GET, &path, Bytes::new()).await?;
            all.extend(answer.read::<Vec<T>>()?);
            cursor = answer.next;
            if cursor.is_none() || limit.is_some_and(|limit| all.len() >= limit as usize) {
                return Ok(all);
            }
        }
    }

    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send(Method::PUT, path, body).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send(Method::POST, path, body).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| refused(&error))?;
        self.exchange(method, path, body.into()).await?.read()
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.exchange(Method::DELETE, path, Bytes::new()).await?;
        answer.read()
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
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
            return Err(Failure::Unreachable(format!(
                "{target} did not answer in {seconds} s; if it is a bridge, its log and \
                 /healthz/ready on port 15190 say what it waits for"
            )));
        };
        answer.map_err(|error| {
            Failure::Unreachable(format!(
                "{target}: {error}; the bridge may be starting or stopping: try again"
            ))
        })
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
        let (mut tried, mut forbidden) = (Vec::new(), None);
        for target in &self.targets {
            let stream = match target {
                Target::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
                Target::Tcp(authority) => TcpStream::connect(authority).await.map(Stream::Tcp),
            };
            match stream {
                Ok(stream) => return Ok((target, stream)),
                Err(error) => {
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        forbidden.get_or_insert(target);
                    }
                    tried.push(format!("{target} ({})", cause(target, &error)));
                }
            }
        }
        let tried = tried.join(" or ");
        Err(match forbidden {
            Some(target) => Failure::Forbidden(format!(
                "no bridge at {tried}; use sudo, or an account of the group that {target} belongs \
                 to, or --bridge http://HOST:15180 with --token-file"
            )),
            None => Failure::Unreachable(format!(
                "no bridge at {tried}; is `outrider-agent-bridge bridge` running on this node? \
                 Name another one with --bridge"
            )),
        })
    }
}

/// Why there is no connection, as people may act on it.
fn cause(target: &Target, error: &io::Error) -> String {
    let is_unix = matches!(target, Target::Unix(_));
    match error.kind() {
        io::ErrorKind::NotFound if is_unix => "there is no such socket".into(),
        io::ErrorKind::PermissionDenied => "you may not use it".into(),
        io::ErrorKind::ConnectionRefused if is_unix => {
            "its bridge has ended, or is about to start".into()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
        _ => error.to_string(),
    }
}

type SendError = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<Answer, SendError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let next = answer.headers().get(NEXT_CURSOR);
        let next = next.and_then(|next| Some(next.to_str().ok()?.to_owned()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await?;
        Ok(Answer { status, next, body: body.to_bytes() })
    };
    let (answer, _closed) = tokio::join!(exchange, connection);
    answer
}

/// What the bridge answered.
struct Answer {
    status: StatusCode,
    /// Cursor of the next page.
    next: Option<String>,
    body: Bytes,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body).map_err(|error| refused(&error));
        }
        Err(failure(self.status, &self.body))
    }
}

/// An answer that is not a success.
pub(crate) fn failure(status: StatusCode, body: &[u8]) -> Failure {
    let said = said(status, body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Forbidden(said),
        _ => Failure::Refused(said),
    }
}

/// What an answer that is not a success says.
fn said(status: StatusCode, body: &[u8]) -> String {
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
pub(crate) fn encode(text: &str) -> String {
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
        let body = b"{\"error\":\"no\"}";
        let no = failure(StatusCode::NOT_FOUND, body);
        assert_eq!((no.to_string().as_str(), no.exit_code()), ("no", 1));
        assert_eq!(failure(StatusCode::UNAUTHORIZED, body).exit_code(), 4);
        let foreign = failure(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(foreign.to_string().contains("is that address a bridge?"));
    }

    #[tokio::test]
    async fn says_where_it_looked_when_nobody_answers() {
        let client = Client::new(Some(&Target::Unix("/nonexistent/api.sock".into())), None);
        let failure = client.get::<u8>("/").await.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("unix:/nonexistent/api.sock"), "{failure}");
    }
}
