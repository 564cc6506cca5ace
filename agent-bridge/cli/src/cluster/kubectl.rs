//! kubectl as a program: with it come all ways to sign in that it knows.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    join,
    process::{Child, Command},
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::client::{Client, Failure, Target};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a tunnel may take to open.
const OPENING: Duration = Duration::from_secs(20);
/// Largest answer taken.
const MAX_ANSWER: u64 = 512 << 20;
/// Port of a bridge's API in its pod.
const API_PORT: u16 = 15180;

/// How it is called.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: String,
    context: Option<String>,
}

/// A way into a pod, as long as it is held.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// What answers at its other end.
    pub(crate) client: Client,
    _process: Child,
    /// Reads on what kubectl says, a line for each connection: it dies of it if nobody does.
    _said: JoinSet<()>,
}

impl Kubectl {
    pub(crate) fn new(context: Option<String>) -> Self {
        let program = std::env::var("KUBECTL")
            .ok()
            .filter(|name| !name.is_empty());
        Self { program: program.unwrap_or_else(|| "kubectl".to_owned()), context }
    }

    /// What the API server has at a path; nothing if there is no such thing.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.text(&["get", "--raw", path]).await {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| Failure::Refused(format!("{path}: {error}"))),
            Err(Said { text, .. }) if text.contains("(NotFound)") => Ok(None),
            Err(said) => Err(said.failure()),
        }
    }

    /// What the API server has at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let none = || Failure::Refused(format!("the API server has nothing at {path}"));
        self.find(path).await?.ok_or_else(none)
    }

    /// The items of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let (mut all, mut more) = (Vec::new(), String::new());
        let sign = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{sign}limit=500{more}")).await?;
            if let Some(items) = page["items"].as_array_mut() {
                all.append(items);
            }
            match page["metadata"]["continue"]
                .as_str()
                .filter(|token| !token.is_empty())
            {
                Some(token) => more = format!("&continue={}", crate::client::encode(token)),
                None => return Ok(all),
            }
        }
    }

    /// What the API server says at a path that is no JSON.
    pub(crate) async fn raw(&self, path: &str) -> Result<String, Failure> {
        self.text(&["get", "--raw", path])
            .await
            .map_err(Said::failure)
    }

    /// Whether whoever asks may do that: `create`, `daemonsets.apps`, in a namespace or everywhere.
    pub(crate) async fn may(
        &self,
        verb: &str,
        what: &str,
        namespace: Option<&str>,
    ) -> Result<bool, Failure> {
        let place = match namespace {
            Some(namespace) => format!("--namespace={namespace}"),
            None => "--all-namespaces".to_owned(),
        };
        match self.text(&["auth", "can-i", verb, what, &place]).await {
            Ok(said) => Ok(said.trim_start().starts_with("yes")),
            Err(Said { out, .. }) if out.trim_start().starts_with("no") => Ok(false),
            Err(said) => Err(said.failure()),
        }
    }

    /// Hands an object to a verb that reads one; the object that comes of it.
    pub(crate) async fn put(&self, verb: &[&str], object: &Value) -> Result<Value, Failure> {
        let arguments = [verb, &["--filename=-", "--output=json"][..]].concat();
        let text = self
            .run(&arguments, Some(&object.to_string()))
            .await
            .map_err(Said::failure)?;
        serde_json::from_str(&text).map_err(|error| Failure::Refused(error.to_string()))
    }

    /// Hands a text to a verb that reads one; what it refuses is said in all its lines.
    pub(crate) async fn say(&self, arguments: &[&str], text: &str) -> Result<(), Failure> {
        match self.run(arguments, Some(text)).await {
            Ok(_said) => Ok(()),
            Err(said) if said.text.contains("Error from server (Invalid)") => {
                Err(Failure::Refused(format!("kubectl:\n{}", said.text.trim())))
            }
            Err(said) => Err(said.failure()),
        }
    }

    /// Opens a way to a bridge's API.
    pub(crate) async fn tunnel(
        &self,
        namespace: &str,
        pod: &str,
        token: Option<String>,
    ) -> Result<Tunnel, Failure> {
        let (namespace, pod) = (format!("--namespace={namespace}"), format!("pod/{pod}"));
        let port = format!(":{API_PORT}");
        let arguments = ["port-forward", "--address=127.0.0.1", &namespace, &pod, &port];
        let mut process = self
            .command(&arguments)
            .spawn()
            .map_err(|error| self.missing(&error))?;
        let (Some(out), Some(mut err)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(Failure::Unreachable("kubectl without output".to_owned()));
        };
        let mut lines = BufReader::new(out).lines();
        let opened = timeout(OPENING, async {
            while let Ok(Some(line)) = lines.next_line().await {
                let rest = line.strip_prefix("Forwarding from 127.0.0.1:");
                let port =
                    rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u16>().ok());
                if port.is_some() {
                    return Ok(port);
                }
            }
            let mut said = String::new();
            (&mut err).take(4096).read_to_string(&mut said).await?;
            Err(std::io::Error::other(said))
        });
        match opened.await {
            Ok(Ok(Some(port))) => {
                let target = Target::Tcp(format!("127.0.0.1:{port}"));
                let mut said = JoinSet::new();
                said.spawn(async move {
                    let (mut out, mut nowhere) = (lines.into_inner(), (sink(), sink()));
                    // Ends with the process, or with the tunnel.
                    let (_, _) =
                        join!(copy(&mut out, &mut nowhere.0), copy(&mut err, &mut nowhere.1));
                });
                let client = Client::new(Some(&target), token);
                Ok(Tunnel { client, _process: process, _said: said })
            }
            Ok(Ok(None)) | Err(_) => {
                Err(Failure::Unreachable(format!("kubectl port-forward to {pod}: no answer")))
            }
            Ok(Err(error)) => {
                let said = Said { text: error.to_string(), out: String::new(), missing: false };
                Err(said.failure())
            }
        }
    }

    async fn text(&self, arguments: &[&str]) -> Result<String, Said> {
        self.run(arguments, None).await
    }

    async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String, Said> {
        let missing = |error: std::io::Error| Said {
            text: self.missing(&error).to_string(),
            out: String::new(),
            missing: true,
        };
        let mut process = self.command(arguments).spawn().map_err(missing)?;
        let (stdin, out, err) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let write = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                stdin.write_all(input.as_bytes()).await?;
            }
            Ok(())
        };
        let asked = async { tokio::try_join!(write, read(out), read(err), process.wait()) };
        let failed = |text: String| Said { text, out: String::new(), missing: false };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(((), out, _, status))) if status.success() => Ok(out),
            Ok(Ok(((), out, err, _))) => Err(Said { text: err, out, missing: false }),
            Ok(Err(error)) => Err(failed(format!("kubectl: {error}"))),
            Err(_elapsed) => Err(failed(format!("kubectl: no answer in {} s", PATIENCE.as_secs()))),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(context) = &self.context {
            command.arg(format!("--context={context}"));
        }
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn missing(&self, error: &std::io::Error) -> Failure {
        let program = &self.program;
        Failure::Usage(format!(
            "{program}: {error}; a cluster is asked through kubectl: install it, or name it in KUBECTL"
        ))
    }
}

async fn read<R: tokio::io::AsyncRead + Unpin>(from: Option<R>) -> std::io::Result<String> {
    let mut text = Vec::new();
    if let Some(from) = from {
        from.take(MAX_ANSWER).read_to_end(&mut text).await?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Why kubectl ended badly.
struct Said {
    text: String,
    out: String,
    missing: bool,
}

impl Said {
    fn failure(self) -> Failure {
        let text = self.text.trim();
        let line = text.lines().last().unwrap_or_default();
        let line = line
            .strip_prefix("Error from server ")
            .unwrap_or(line)
            .to_owned();
        if self.missing {
            Failure::Usage(line)
        } else if text.contains("orbidden") {
            Failure::Forbidden(format!("kubectl: {line}"))
        } else if text.contains("Error from server") {
            Failure::Refused(format!("kubectl: {line}"))
        } else {
            Failure::Unreachable(format!("kubectl: {line}"))
        }
    }
}
