//! A mailbox root, a store and a running bridge.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use outrider_agent_bridge::{
    bridge::{Bridge, BridgeError},
    settings::Settings,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything; nothing here comes near it unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node's files.
pub(crate) struct World {
    dir: tempfile::TempDir,
    more: Vec<(&'static str, String)>,
}

/// A bridge that runs in this process.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), BridgeError>>,
    asked: Asked,
    pub(crate) api: std::net::SocketAddr,
    pub(crate) grpc: Option<std::net::SocketAddr>,
    pub(crate) metrics: std::net::SocketAddr,
}

/// A bridge that runs as a process, so that it can be killed.
pub(crate) struct Killable {
    child: Child,
    asked: Asked,
}

/// The API of either, over its unix socket.
pub(crate) struct Asked(PathBuf);

impl std::ops::Deref for Running {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl std::ops::Deref for Killable {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        Self { dir, more: Vec::new() }
    }

    /// With another setting, or another value for one.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.more.retain(|(known, _)| *known != key);
        self.more.push((key, value.into()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a mailbox with its workload file; the address ends in `number`, as does the MAC.
    pub(crate) fn pod(&self, name: &str, number: u8) {
        let addresses = [format!("10.0.0.{number}"), format!("fd00::{number:x}")];
        self.workload(name, &addresses, mac(number));
    }

    /// The same with any addresses and MAC.
    pub(crate) fn workload(&self, name: &str, addresses: &[String], mac: outrider_model::MacAddr) {
        std::fs::create_dir_all(self.mailbox(name)).unwrap();
        let workload = json!({
            "uid": name, "name": name, "namespace": "default", "service": name,
            "addresses": addresses, "mac": mac.to_string(), "labels": {},
        });
        let file = self.path().join("pods").join(format!("{name}.json"));
        std::fs::write(file, workload.to_string()).unwrap();
    }

    pub(crate) fn mailbox(&self, name: &str) -> std::path::PathBuf {
        self.path().join("pods").join(name)
    }

    pub(crate) fn remove_workload_file(&self, name: &str) {
        std::fs::remove_file(self.path().join("pods").join(format!("{name}.json"))).unwrap();
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path().join(name).display().to_string();
        let mut set = vec![
            ("OUTRIDER_PODS_DIR", path("pods")),
            ("OUTRIDER_BRIDGE_STORE", path("bridge.redb")),
            ("OUTRIDER_BRIDGE_SOCKET", path("api.sock")),
            ("OUTRIDER_BRIDGE_GRPC_SOCKET", path("grpc.sock")),
            ("OUTRIDER_BRIDGE_API", "127.0.0.1:0".into()),
            ("OUTRIDER_BRIDGE_METRICS_PORT", "0".into()),
        ];
        set.retain(|(key, _)| self.more.iter().all(|(other, _)| other != key));
        set.extend(self.more.iter().cloned());
        set
    }

    fn settings(&self) -> Settings {
        let set = self.environment();
        let find = |key: &str| set.iter().find(|(name, _)| *name == key);
        Settings::read(|key| find(key).map(|(_, value)| value.clone())).unwrap()
    }

    /// Starts the binary; it is there once its socket answers.
    pub(crate) async fn spawn(&self) -> Killable {
        self.spawn_with(&[]).await
    }

    /// The same, with more settings.
    pub(crate) async fn spawn_with(&self, settings: &[(&str, &str)]) -> Killable {
        let mut command = Command::new(BINARY);
        command.arg("bridge").envs(settings.iter().copied());
        self.spawn_by(command).await
    }

    /// The same for a process that lives on when it gets a signal.
    pub(crate) async fn spawn_ignoring(&self, signal: &str) -> Killable {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' {signal}; exec \"$0\" bridge"), BINARY]);
        self.spawn_by(command).await
    }

    async fn spawn_by(&self, mut command: Command) -> Killable {
        let given: Vec<_> = {
            let given = command.as_std().get_envs();
            given.map(|(key, _)| key.to_owned()).collect()
        };
        let missing = self.environment().into_iter();
        let missing = missing.filter(|(key, _)| !given.iter().any(|given| given == key));
        let child = command
            .envs(missing)
            .env("OUTRIDER_BRIDGE_LOG", "error")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let asked = Asked(self.path().join("api.sock"));
        let connected = async {
            while UnixStream::connect(&asked.0).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, connected).await.unwrap();
        Killable { child, asked }
    }

    pub(crate) async fn start(&self) -> Running {
        let bridge = Bridge::open(self.settings()).await.unwrap();
        let (api, metrics) = (bridge.api_address().unwrap(), bridge.metrics_address().unwrap());
        let grpc = bridge.grpc_address();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it itself")]
        let task = tokio::spawn(bridge.run(stop.clone()));
        Running { stop, task, asked: Asked(self.path().join("api.sock")), api, grpc, metrics }
    }
}

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_outrider-agent-bridge");

/// The MAC of a pod.
pub(crate) fn mac(number: u8) -> outrider_model::MacAddr {
    outrider_model::MacAddr([0x0a, 0x58, 10, 0, 0, number])
}

impl Running {
    /// Stops as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

impl Killable {
    /// Begins to measure how much memory it takes at most.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(self.proc("clear_refs"), "5").unwrap();
    }

    /// The most memory it took since, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id().unwrap()))
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Asked {
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        http(UnixStream::connect(&self.0).await.unwrap(), method, path, "localhost", body).await
    }

    /// Asks until the answer is right.
    pub(crate) async fn until(&self, path: &str, right: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let answer = self.get(path).await;
                if right(&answer) {
                    return answer;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => panic!("{path} stays {}", self.get(path).await),
        }
    }

    /// Waits until a workload's proxy is `state`.
    pub(crate) async fn proxy_is(&self, name: &str, state: &str) {
        let name = format!("default/{name}");
        self.until("/v1/workloads", |all| {
            all.as_array()
                .unwrap()
                .iter()
                .any(|one| one["name"] == name && one["proxy"] == state)
        })
        .await;
    }
}

/// One HTTP exchange, read to its end.
pub(crate) async fn http(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    method: &str,
    path: &str,
    host: &str,
    body: &str,
) -> (u16, Value) {
    let (head, body) = exchange(&mut stream, method, path, &[("host", host)], body).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body)
}

/// The same with any headers; gives the answer's head too.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (String, Value) {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (head.to_owned(), body)
}
