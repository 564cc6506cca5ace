//! Traffic of every kind, both ways, both families.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::Pod;

/// Protocols and applications, and how many sessions of each there are at least.
pub(crate) const EXPECTED: [(&str, u32, usize); 8] = [
    ("udp", 1004, 4),
    ("udp", 1006, 4),
    ("udp", 0, 4),
    ("tcp", 1001, 8),
    ("tcp", 2002, 4),
    ("tcp", 1002, 2),
    ("icmp", 0, 2),
    ("icmpv6", 0, 2),
];

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
const DNS: u16 = 53;
const NTP: u16 = 123;
const ECHO: u16 = 4711;

/// Name, time and echo servers of a pod; they end when this is dropped.
pub(crate) struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn start(pod: &Pod) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (port, v6) in [DNS, NTP, ECHO]
            .into_iter()
            .flat_map(|port| [(port, false), (port, true)])
        {
            let at = pod.at(v6, port);
            let socket = pod.netns.enter(|| Ok(UdpSocket::bind(at)?))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || answer(&socket, port, &stop)));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, port: u16, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        match port {
            DNS => buffer[2] |= 0x80,
            NTP => buffer[0] = 0x24,
            _ => {}
        }
        let _unsent = socket.send_to(&buffer[..length], client);
    }
}

/// One question for a name that says where it was asked.
fn dns(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or_default();
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, length];
    [&head[..], name.as_bytes(), b"\x07example\0\0\x01\0\x01"].concat()
}

fn ntp() -> Vec<u8> {
    let mut question = vec![0x23, 0, 6, 0xec];
    question.resize(40, 0);
    question.extend([0xe8, 1, 2, 3, 4, 5, 6, 7]);
    question
}

/// A question from a socket of its own, and its answer.
fn ask(from: &Pod, server: SocketAddr, question: &[u8]) -> Result<()> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    from.netns.enter(|| {
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send_to(question, server)?;
        let mut buffer = vec![0; 65_536];
        let (length, _) = socket
            .recv_from(&mut buffer)
            .with_context(|| format!("no answer of {server}"))?;
        ensure!(length == question.len(), "{length} bytes of {}", question.len());
        Ok(())
    })
}

/// Everything once and more, in a few seconds. Pings come last: their sessions are the first to go.
pub(crate) fn generate(web: &Pod, shop: &Pod) -> Result<()> {
    // Larger than a packet may be: fragments, some of them.
    let large = vec![b'x'; 5_000];
    for v6 in [false, true] {
        for name in ["first", "second"] {
            ask(shop, web.at(v6, DNS), &dns(name))?;
            ask(shop, web.at(v6, NTP), &ntp())?;
        }
        ask(shop, web.at(v6, ECHO), &large)?;
        ask(shop, web.at(v6, ECHO), b"nobody knows what this is")?;
        for (client, server) in [(shop, web), (web, shop)] {
            let (http, tls) = (server.at(v6, 80), server.at(v6, 443));
            client.fetch(&format!("http://{http}/1k"))?;
            client.fetch(&format!("http://{http}/"))?;
            client.fetch(&format!("https://{tls}/"))?;
            client.redis_cli(server.at(v6, 6379), &["set", "key", "value"])?;
        }
    }
    for v6 in [false, true] {
        // One each way: on the ctrl wire nothing tells two of them apart.
        shop.sh(&format!("ping -q -c 2 -i 0.2 -s 4000 {}", web.ip(v6)))?;
        web.sh(&format!("ping -q -c 2 -i 0.2 {}", shop.ip(v6)))?;
    }
    Ok(())
}
