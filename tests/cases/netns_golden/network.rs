//! The golden network, its servers, and what was done in it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_model::{IpProto, PolicyAction, RuleId};
use outrider_tests::{Pod, Process, World, pod::Addresses, process::run, until};
use outrider_wire::{
    ChunkFlags, Directions, PolicyCommand,
    request::{Policy, Rule},
};
use serde_json::Value;

use super::PATIENCE;

/// One client, which is the way out of both pods' networks, and the two pods.
pub(crate) struct Network {
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    client: Pod,
    _world: World,
}

/// What goes on while sessions are looked at.
#[derive(Default)]
pub(crate) struct Traffic {
    held: Vec<TcpStream>,
    pings: Vec<Process>,
    dns: Vec<UdpSocket>,
}

impl Network {
    pub(crate) fn build() -> Result<Self> {
        let mut world = World::new()?;
        let mut pod = |name: &str, v4: &str, v6: &str, mac: &str| {
            world.pod_at(name, Addresses { v4: v4.parse()?, v6: v6.parse()?, mac: mac.to_owned() })
        };
        let client = pod("client", "10.77.1.1", "fd77:1::1", "0a:58:0a:4d:01:01")?;
        client.netns.ip("addr add 10.77.2.1/24 dev eth0")?;
        client.netns.ip("addr add 203.0.113.10/32 dev lo")?;
        let one = pod("one", "10.77.1.5", "fd77:1::5", "0a:58:0a:4d:01:05")?;
        let two = pod("two", "10.77.2.5", "fd77:2::5", "0a:58:0a:4d:02:05")?;
        Ok(Self { one, two, client, _world: world })
    }

    pub(crate) fn start_proxies(&mut self) -> Result<()> {
        for pod in [&mut self.one, &mut self.two] {
            pod.init()?;
            pod.start_proxy_with_net_raw(&[("OUTRIDER_PROXY_DNS_SERVERS", "10.77.1.1")])?;
        }
        serve(&self.one, "[::]:8080", HTTP)?;
        serve(&self.one, "0.0.0.0:6379", REDIS)?;
        serve(&self.two, "0.0.0.0:8080", HTTP)?;
        serve(&self.two, "0.0.0.0:9999", HTTP)?;
        serve(&self.client, "203.0.113.10:80", HTTP)?;
        serve_names(&self.client)
    }

    /// Does what a note of the transcript says was done.
    pub(crate) fn play(&self, note: &str, traffic: &mut Traffic) -> Result<()> {
        if note == "clear all sessions" {
            traffic.pings.clear();
        }
        let Some(what) = note.strip_prefix("traffic (") else { return Ok(()) };
        let (what, _) = what.split_once(')').context("who to whom")?;
        for pod in [&self.one, &self.two] {
            in_force(pod, |status| status["rules"]["exact"].as_u64() >= Some(1))?;
        }
        match what {
            "client->pod1" if note.contains("curl") => {
                traffic.hold(&self.client, "10.77.1.5:8080", GET)
            }
            "client->pod1" if note.contains("redis") => {
                traffic.hold(&self.client, "10.77.1.5:6379", SET)
            }
            "client->pod1" => traffic.ping(&self.client),
            "client->pod1 ipv6" => traffic.hold(&self.client, "[fd77:1::5]:8080", GET),
            "client->pod1 with X-Forwarded-For" => {
                traffic.hold(&self.client, "10.77.1.5:8080", FORWARDED)
            }
            "pod1->dns server" => traffic.look_up(&self.one),
            "pod1->external" => traffic.hold(&self.one, "203.0.113.10:80", NAMED),
            "client->pod2 allowed" => traffic.hold(&self.client, "10.77.2.5:8080", GET),
            "client->pod2 denied" => {
                self.is_refused("10.77.2.5:9999", |status| status["mode"] == "protect")
            }
            "client->pod2 now allowed" => until("the new policy", PATIENCE, || {
                traffic.hold(&self.client, "10.77.2.5:9999", GET)
            }),
            "client->pod2 quarantined" => {
                self.is_refused("10.77.2.5:8080", |status| status["quarantined"] == true)
            }
            "client->pod1: oversized ping" => {
                let ping = ["-c", "1", "-W", "2", "-s", "40000", "10.77.1.5"];
                run(self.client.netns.limited(PATIENCE, "ping").args(ping)).map(drop)
            }
            other => bail!("{other} is not known"),
        }
    }

    fn is_refused(&self, to: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        in_force(&self.two, wanted)?;
        let answer = held(&self.client, to.parse()?, GET);
        ensure!(answer.is_err(), "{to} answered");
        Ok(())
    }
}

/// Policy and quarantine come into force a moment after they were asked for.
fn in_force(pod: &Pod, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    until("what was asked for to be in force", PATIENCE, || {
        let status = pod.status()?;
        ensure!(wanted(&status), "{status}");
        Ok(())
    })
}

impl Traffic {
    /// Connects, asks, reads the beginning of the answer, and stays connected.
    fn hold(&mut self, from: &Pod, to: &str, what: &[u8]) -> Result<()> {
        let to = to.parse()?;
        let stream = until("an answer", PATIENCE, || held(from, to, what))?;
        self.held.push(stream);
        Ok(())
    }

    /// Goes on until the end, so that it is seen whenever it is looked for.
    fn ping(&mut self, from: &Pod) -> Result<()> {
        let mut ping = from.netns.command("ping");
        ping.args(["-i", "0.3", "10.77.1.5"]);
        self.pings
            .push(Process::spawn("ping", ping, &from.file("ping.log"))?);
        Ok(())
    }

    fn look_up(&mut self, from: &Pod) -> Result<()> {
        let socket = from.netns.enter(|| Ok(UdpSocket::bind("10.77.1.5:0")?))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        until("an answer of the name server", PATIENCE, || {
            socket.send_to(QUESTION, "10.77.1.1:53")?;
            Ok(socket.recv(&mut [0; 512])?)
        })?;
        self.dns.push(socket);
        Ok(())
    }
}

fn held(from: &Pod, to: SocketAddr, what: &[u8]) -> Result<TcpStream> {
    let mut stream = from
        .netns
        .enter(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(5))?))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(what)?;
    ensure!(stream.read(&mut [0; 512])? > 0, "{to} closed");
    Ok(stream)
}

/// Answers everything that comes with the same; its threads end with the process.
fn serve(pod: &Pod, at: &str, answer: &'static [u8]) -> Result<()> {
    let listener = pod.netns.enter(|| Ok(TcpListener::bind(at)?))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || converse(stream, answer));
        }
    });
    Ok(())
}

fn converse(mut stream: TcpStream, answer: &[u8]) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(read) if read > 0) {
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// Every name is 203.0.113.10.
fn serve_names(pod: &Pod) -> Result<()> {
    let socket = pod.netns.enter(|| Ok(UdpSocket::bind("10.77.1.1:53")?))?;
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let end = QUESTION.len().min(length);
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4, 203, 0, 113, 10]);
            let _unheard = socket.send_to(&answer, from);
        }
    });
    Ok(())
}

/// A policy of so many rules for pod one, each about another client.
pub(crate) fn policy(rules: usize) -> Result<Policy> {
    let first = u32::from(Ipv4Addr::new(10, 100, 0, 0));
    let rule = |client: u32| Rule {
        id: RuleId(10_001),
        client: IpAddr::from(Ipv4Addr::from(first + client)).into(),
        server: IpAddr::from([10, 77, 1, 5]).into(),
        port: 80,
        port_end: 80,
        proto: IpProto::TCP,
        action: PolicyAction::Allow.into(),
        ingress: true,
        ..Rule::default()
    };
    let rules: Vec<_> = (0..u32::try_from(rules)?).map(rule).collect();
    Ok(Policy {
        command: PolicyCommand::ADD,
        chunk: ChunkFlags::WHOLE,
        default_action: PolicyAction::Violate.into(),
        directions: Directions::INGRESS,
        macs: vec!["0a:58:0a:4d:01:05".parse()?].into(),
        rules: rules.into(),
        ..Policy::default()
    })
}

/// The bytes of an odd input. Of a long one only length and beginning are kept: the rest is letters
/// and the end.
pub(crate) fn odd_input(request: &Value) -> Result<Vec<u8>> {
    if let Some(text) = request["text"].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    if let Some(hex) = request["hex"].as_str() {
        return super::corpus::unhex(hex);
    }
    let end = br#""}}"#;
    let length = usize::try_from(request["length"].as_u64().context("a length")?)?;
    let mut long = request["head"]
        .as_str()
        .context("a head")?
        .as_bytes()
        .to_vec();
    long.resize(length - end.len(), b'a');
    long.extend(end);
    Ok(long)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const NAMED: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
const FORWARDED: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: https\r\n\r\n";
const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const HTTP: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REDIS: &[u8] = b"+OK\r\n";
/// www.example.test, A.
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01";
