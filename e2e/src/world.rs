//! Two network namespaces, `client` and `pod`, joined by a veth pair; servers in the pod, load from the client.

use std::{
    fs,
    io::Read as _,
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

/// The pod's address.
pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The client's.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// nginx, plain HTTP/1.1.
pub(crate) const HTTP: u16 = 8080;
/// The echo server.
pub(crate) const ECHO: u16 = 7000;
/// iperf3.
pub(crate) const IPERF: u16 = 5201;
/// How long a server or proxy may take to listen.
const START: Duration = Duration::from_secs(20);

/// Which namespace.
#[derive(Clone, Copy)]
pub(crate) enum Where {
    Client,
    Pod,
}

/// A process with a group of its own that ends with its owner.
pub(crate) struct Running(Child);

impl Running {
    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?)
    }

    /// Interrupts it and returns what it still had to say.
    pub(crate) fn finish(mut self) -> Result<String> {
        self.signal(Signal::SIGINT)?;
        let mut text = String::new();
        let output = self.0.stdout.as_mut().context("its output is not ours")?;
        output.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        }
        self.0.wait().ok();
    }
}

/// The namespaces, the work directory and the servers; all go with it.
pub(crate) struct World {
    tag: String,
    /// Configurations and logs.
    pub(crate) dir: PathBuf,
    servers: Vec<Running>,
}

impl World {
    /// Makes the namespaces and starts nginx, the echo server and iperf3.
    pub(crate) fn start() -> Result<Self> {
        let tag = format!("ob{}", std::process::id());
        let dir = std::env::temp_dir().join(&tag);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        clean_up_on_signals(tag.clone(), dir.clone())?;
        let mut world = Self { tag, dir, servers: Vec::new() };
        world.link()?;
        world.serve()?;
        Ok(world)
    }

    fn name(&self, place: Where) -> String {
        let end = match place {
            Where::Client => 'c',
            Where::Pod => 'p',
        };
        format!("{}{end}", self.tag)
    }

    fn link(&self) -> Result<()> {
        let (client, pod) = (self.name(Where::Client), self.name(Where::Pod));
        sh(&format!("ip netns add {client} && ip netns add {pod}"))?;
        sh(&format!("ip link add eth0 netns {client} type veth peer name eth0 netns {pod}"))?;
        for (space, address) in [(&client, CLIENT), (&pod, POD)] {
            sh(&format!(
                "ip -n {space} addr add {address}/24 dev eth0 && ip -n {space} link set lo up \
                 && ip -n {space} link set eth0 up \
                 && ip netns exec {space} sysctl -qw net.ipv4.ip_local_port_range='16384 65535' \
                    net.ipv4.tcp_tw_reuse=1 net.core.somaxconn=65535"
            ))?;
            sh(&format!("ip netns exec {space} sysctl -qw net.ipv4.tcp_congestion_control=cubic"))
                .ok();
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        let root = self.dir.join("www");
        fs::create_dir_all(&root)?;
        fs::write(root.join("1k"), [b'x'; 1024])?;
        let conf = self.dir.join("nginx.conf");
        fs::write(&conf, nginx_conf(&self.dir))?;
        let own = std::env::current_exe()?;
        let commands = [
            (
                HTTP,
                format!("nginx -p {0} -e {0}/nginx.err -c {1}", self.dir.display(), conf.display()),
            ),
            (ECHO, format!("{} tool echo 0.0.0.0:{ECHO}", own.display())),
            (IPERF, format!("iperf3 -s -p {IPERF}")),
        ];
        for (port, command) in commands {
            let server = self.spawn(Where::Pod, &command, "server")?;
            self.await_port(port)?;
            self.servers.push(server);
        }
        Ok(())
    }

    fn command(&self, place: Where, command: &str) -> Command {
        let mut process = Command::new("ip");
        process.args(["netns", "exec", &self.name(place), "sh", "-c"]);
        process.arg(format!("ulimit -n $(ulimit -Hn); exec {command}"));
        process.process_group(0).stdin(Stdio::null());
        process
    }

    /// Starts a command that goes on.
    pub(crate) fn spawn(&self, place: Where, command: &str, log: &str) -> Result<Running> {
        let log = fs::File::create(self.dir.join(format!("{log}.log")))?;
        let mut process = self.command(place, command);
        process.stdout(log.try_clone()?).stderr(log);
        Ok(Running(process.spawn().with_context(|| command.to_owned())?))
    }

    /// Starts a command whose first output line is awaited, and whose input stays open while it is held.
    pub(crate) fn spawn_until_line(&self, place: Where, command: &str) -> Result<Running> {
        let mut process = self.command(place, command);
        let mut child = process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut byte = [0; 1];
        let output = child.stdout.as_mut().context("no output")?;
        let read = output.read(&mut byte);
        let running = Running(child);
        ensure!(read? == 1, "{command}: ended early");
        Ok(running)
    }

    /// Runs a command to its end and returns what it printed.
    pub(crate) fn output(&self, place: Where, command: &str) -> Result<String> {
        let output = self.command(place, command).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {} {error}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Sends the pod's inbound TCP to a port, but what is meant for the proxies' own ports.
    pub(crate) fn intercept(&self, port: Option<u16>) -> Result<()> {
        let pod = self.name(Where::Pod);
        sh(&format!("ip netns exec {pod} iptables -w -t nat -F PREROUTING"))?;
        if let Some(port) = port {
            sh(&format!(
                "ip netns exec {pod} iptables -w -t nat -A PREROUTING -i eth0 -p tcp \
                 -m tcp ! --dport 15000:15199 -j REDIRECT --to-ports {port}"
            ))?;
        }
        Ok(())
    }

    /// Waits until something listens at a port of the pod.
    pub(crate) fn await_port(&self, port: u16) -> Result<()> {
        let wanted = format!(":{port:04X} ");
        let end = SystemTime::now() + START;
        while SystemTime::now() < end {
            let sockets = self.output(Where::Pod, "cat /proc/net/tcp /proc/net/tcp6")?;
            let listens = |line: &str| line.contains(&wanted) && line.contains(" 0A ");
            if sockets.lines().any(listens) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nothing listens at port {port} after {START:?}; logs are in {}", self.dir.display())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.clear();
        clean_up(&self.tag, &self.dir);
    }
}

/// Ends what still runs in the namespaces and removes them and the work directory.
fn clean_up(tag: &str, dir: &Path) {
    for end in ['c', 'p'] {
        sh(&format!("ip netns pids {tag}{end} | xargs -r kill -9; ip netns del {tag}{end}")).ok();
    }
    fs::remove_dir_all(dir).ok();
}

/// Cleans up and exits as a shell would say it when the run is interrupted.
fn clean_up_on_signals(tag: String, dir: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                biased;
                interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| 130),
                _ = terminate.recv() => Ok::<i32, std::io::Error>(143),
            }
        });
        clean_up(&tag, &dir);
        std::process::exit(code.unwrap_or(1));
    });
    Ok(())
}

fn sh(line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-c", line]).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {error}");
    Ok(())
}

fn nginx_conf(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "daemon off; user root; worker_processes 1; pid {dir}/nginx.pid;\n\
         events {{ worker_connections 19000; }}\n\
         http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000;\n\
         keepalive_timeout 1h; open_file_cache max=100; open_file_cache_valid 1h;\n\
         server {{ listen {HTTP} backlog=65535; root {dir}/www; }} }}\n"
    )
}
