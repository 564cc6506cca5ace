//! Questions, a server for them, and clients that keep every byte of the answers.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Namespace, Pod, binaries, process::run, until};
use tokio::time::Instant;

/// Questions asked over each transport.
pub(crate) const QUESTIONS: usize = 10_000;
/// Hosts of the zone.
const HOSTS: usize = 1_000;
/// Questions asked from one socket or by one connection.
const A_SOCKET: usize = 250;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Answers in the order of their questions.
pub(crate) struct Seen {
    pub(crate) answers: Vec<Vec<u8>>,
    /// Of the time from question to answer.
    pub(crate) median: Duration,
}

/// One question, with EDNS or without.
pub(crate) fn question(id: u16, name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if edns {
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 3, 0, 0]);
    }
    message
}

/// Questions of all sorts: both families, aliases, services, names that do not exist, answers too long
/// for a datagram.
pub(crate) fn questions(count: usize) -> Vec<Vec<u8>> {
    let sorts: [(&str, u16); 8] = [
        ("h", 1),
        ("h", 28),
        ("alias", 1),
        ("Alias", 28),
        ("svc", 65),
        ("none", 1),
        ("long", 16),
        ("h", 255),
    ];
    let one = |at: usize| {
        let (sort, kind) = sorts[at % sorts.len()];
        let name = format!("{sort}{}.example", at / sorts.len() % HOSTS);
        let id = u16::try_from(at % 65_536).unwrap_or_default();
        question(id, &name, kind, (at / 3).is_multiple_of(2))
    };
    (0..count).map(one).collect()
}

/// Starts knot in a pod with the zone of [`questions`] and some records more.
pub(crate) fn serve_knot(pod: &mut Pod, more: &[String]) -> Result<()> {
    let dir = pod.file("knot");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("example.zone"), zone(more)?)?;
    let conf = dir.join("knot.conf");
    fs::write(&conf, KNOT_CONF.replace("@DIR@", &dir.display().to_string()))?;
    let mut command = pod.netns.command("knotd");
    command.arg("-c").arg(&conf);
    pod.serve("knot", command, &[53])?;
    // It listens before it has read the zone.
    let asked = [question(1, "ns.example", 1, false)];
    until("the zone", ANSWER, || {
        let seen = ask_udp(&pod.netns, (Ipv4Addr::LOCALHOST, 53).into(), &asked)?;
        ensure!(seen.answers[0][3] & 0x0f == 0, "{:?}", seen.answers);
        Ok(())
    })
}

fn zone(more: &[String]) -> Result<String> {
    let mut zone = String::from(
        "$ORIGIN example.\n$TTL 300\n@ SOA ns root 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\n",
    );
    let text = format!("\"{}\" ", "x".repeat(250)).repeat(8);
    for at in 0..HOSTS {
        let (high, low) = (at / 256, at % 256);
        writeln!(zone, "h{at} A 11.0.{high}.{low}\nh{at} A 11.1.{high}.{low}")?;
        writeln!(zone, "h{at} AAAA 2001:db8::{at:x}\nalias{at} 60 CNAME h{at}")?;
        writeln!(
            zone,
            "svc{at} HTTPS 1 . alpn=h2 ipv4hint=11.2.{high}.{low} ipv6hint=2001:db8:1::{at:x}"
        )?;
        writeln!(zone, "long{at} TXT {text}")?;
    }
    more.iter()
        .try_for_each(|record| writeln!(zone, "{record}"))?;
    Ok(zone)
}

/// Rules that redirect questions to these servers, and a proxy that takes them.
pub(crate) fn capture(pod: &mut Pod, servers: &[SocketAddr]) -> Result<()> {
    let list = redirect(pod, servers, &[])?;
    pod.start_proxy_with(&[("OUTRIDER_PROXY_DNS", "on"), ("OUTRIDER_PROXY_DNS_SERVERS", &list)])
}

/// The same with rules that know the proxy by a mark besides its uid.
pub(crate) fn capture_marked(pod: &mut Pod, servers: &[SocketAddr], mark: &str) -> Result<()> {
    let marked = ("OUTRIDER_MARK", mark);
    let list = redirect(pod, servers, &[marked])?;
    pod.start_proxy_with_net_raw(&[
        marked,
        ("OUTRIDER_PROXY_DNS", "on"),
        ("OUTRIDER_PROXY_DNS_SERVERS", &list),
    ])
}

fn redirect(pod: &Pod, servers: &[SocketAddr], settings: &[(&str, &str)]) -> Result<String> {
    let list: Vec<String> = servers
        .iter()
        .map(|server| server.ip().to_string())
        .collect();
    let list = list.join(",");
    let init = binaries::find("outrider-init")?;
    let mut command = pod.netns.limited(Duration::from_secs(30), init);
    command.envs(settings.iter().copied());
    run(command.arg("apply").env("OUTRIDER_INIT_DNS", &list))?;
    Ok(list)
}

/// Asks one question after the other.
pub(crate) fn ask_udp(netns: &Namespace, server: SocketAddr, asked: &[Vec<u8>]) -> Result<Seen> {
    netns.enter(|| {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let (mut answers, mut times) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; 65_535];
        for some in asked.chunks(A_SOCKET) {
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(ANSWER))?;
            for question in some {
                let begun = Instant::now();
                socket.send(question)?;
                let length = socket.recv(&mut buffer).context("no answer")?;
                times.push(begun.elapsed());
                ensure!(buffer[..2] == question[..2], "answer to another question");
                answers.push(buffer[..length].to_vec());
            }
        }
        Ok(Seen { answers, median: median(times) })
    })
}

/// Asks so many questions at a time over each connection.
pub(crate) fn ask_tcp(
    netns: &Namespace,
    server: SocketAddr,
    asked: &[Vec<u8>],
    at_once: usize,
) -> Result<Seen> {
    netns.enter(|| {
        let (mut answers, mut times) = (Vec::new(), Vec::new());
        for some in asked.chunks(A_SOCKET) {
            let mut stream = TcpStream::connect(server)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER))?;
            for batch in some.chunks(at_once) {
                let begun = Instant::now();
                stream.write_all(&framed(batch)?)?;
                let mut seen = HashMap::new();
                for _ in batch {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length).context("no answer")?;
                    let mut message = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut message)?;
                    seen.insert([message[0], message[1]], message);
                }
                times.push(begun.elapsed());
                for question in batch {
                    let answer = seen.remove(&[question[0], question[1]]);
                    answers.push(answer.context("answer to another question")?);
                }
            }
        }
        Ok(Seen { answers, median: median(times) })
    })
}

fn framed(messages: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut stream = Vec::new();
    for message in messages {
        stream.extend(u16::try_from(message.len())?.to_be_bytes());
        stream.extend(message);
    }
    Ok(stream)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

const KNOT_CONF: &str = "\
server:
    listen: [ 0.0.0.0@53, \"::@53\" ]
    rundir: \"@DIR@\"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: \"@DIR@/db\"
log:
  - target: stderr
    any: warning
zone:
  - domain: example
    storage: \"@DIR@\"
    file: example.zone
    semantic-checks: off
    journal-content: none
";
