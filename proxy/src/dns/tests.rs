//! The listener over real sockets of loopback.

use std::{net::IpAddr, sync::Arc};

use outrider_policy::NameTable;
use outrider_telemetry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    metrics::{Outcome, Transport},
    testing::{answer, asker, question, server, view},
    *,
};

/// A listener over an asker, and what stops it.
struct Rig {
    asker: Arc<Asker>,
    udp: SocketAddr,
    tcp: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Rig {
    async fn new(servers: &[SocketAddr], options: &str) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rig = Self {
            asker: Arc::new(asker(servers, options)),
            udp: udp.local_addr().unwrap(),
            tcp: tcp.local_addr().unwrap(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let asker = || Arc::clone(&rig.asker);
        rig.tasks
            .spawn(udp::serve(asker(), udp, rig.tasks.clone(), rig.stop.clone()));
        rig.tasks
            .spawn(tcp::serve(asker(), tcp, rig.tasks.clone(), rig.stop.clone()));
        rig
    }

    fn count(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.asker.metrics.count(transport, outcome)
    }

    async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.udp).await.unwrap();
        client
    }
}

fn label(asker: &Asker, address: [u8; 4]) -> Option<String> {
    asker.names.label(IpAddr::from(address))
}

/// A name server over TCP that hands each connection to `serve`.
async fn tcp_server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream).await;
        }
    });
    address
}

async fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    stream
        .write_all(&[&length[..], message].concat())
        .await
        .unwrap();
}

/// Answers two questions at a time, the second first.
async fn in_pairs(mut stream: TcpStream) {
    while let Some(first) = read_message(&mut stream).await {
        let second = read_message(&mut stream).await.unwrap();
        for question in [second, first] {
            write_message(&mut stream, &answer(&question, 0, [11, 0, 0, question[1]])).await;
        }
    }
}

#[tokio::test]
async fn a_datagrams_answer_is_learned_before_it_is_delivered() {
    let upstream = server(|question| vec![answer(question, 0, [11, 0, 0, question[1]])]).await;
    let rig = Rig::new(&[upstream], "").await;
    let client = rig.client().await;
    for id in 1..=50 {
        let asked = question(id, &format!("n{id}.example"));
        client.send(&asked).await.unwrap();
        let mut buffer = [0; 512];
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[0..2], id.to_be_bytes());
        assert_eq!(buffer[12..asked.len()], asked[12..]);
        let address = [11, 0, 0, buffer[length - 1]];
        assert_eq!(label(&rig.asker, address), Some(format!("n{id}.example")));
    }
    client.send(b"junk").await.unwrap();
    client.send(&question(51, "last.example")).await.unwrap();
    client.recv(&mut [0; 512]).await.unwrap();
    assert_eq!(rig.count(Transport::Udp, Outcome::Malformed), 1);
    rig.stop.cancel();
}

#[tokio::test]
async fn one_question_too_many_is_dropped_and_counted() {
    let upstream = server(|_| Vec::new()).await;
    let rig = Rig::new(&[upstream], "").await;
    let all = Arc::clone(&rig.asker.questions);
    let taken = all
        .try_acquire_many_owned(u32::try_from(udp::MAX_QUESTIONS).unwrap())
        .unwrap();
    let client = rig.client().await;
    client.send(&question(1, "a.example")).await.unwrap();
    while rig.count(Transport::Udp, Outcome::Overflow) == 0 {
        tokio::task::yield_now().await;
    }
    drop(taken);
}

#[tokio::test]
async fn a_connections_answers_pass_in_the_servers_order_and_teach() {
    let rig = Rig::new(&[tcp_server(in_pairs).await], "").await;
    let mut client = TcpStream::connect(rig.tcp).await.unwrap();
    for id in 1..=40 {
        write_message(&mut client, &question(id, &format!("n{id}.example"))).await;
    }
    for pair in 0..20_u16 {
        for id in [pair * 2 + 2, pair * 2 + 1] {
            let seen = read_message(&mut client).await.unwrap();
            let asked = question(id, &format!("n{id}.example"));
            assert_eq!(seen, answer(&asked, 0, [11, 0, 0, asked[1]]));
        }
    }
    assert_eq!(label(&rig.asker, [11, 0, 0, 40]).as_deref(), Some("n40.example"));
    assert_eq!(rig.count(Transport::Tcp, Outcome::Answered), 40);
}

#[tokio::test]
async fn what_was_said_is_said_again_to_the_next_server() {
    let closing = tcp_server(async |mut stream: TcpStream| {
        let _asked = read_message(&mut stream).await;
    });
    let gone = "127.0.0.1:1".parse().unwrap();
    let rig = Rig::new(&[gone, closing.await, tcp_server(in_pairs).await], "").await;
    let mut client = TcpStream::connect(rig.tcp).await.unwrap();
    for id in [1, 2] {
        write_message(&mut client, &question(id, "a.example")).await;
    }
    client.shutdown().await.unwrap();
    for id in [2, 1] {
        assert_eq!(read_message(&mut client).await.unwrap()[1], id);
    }
    assert_eq!(read_message(&mut client).await, None, "the server's end is the client's");
    assert_eq!(rig.count(Transport::Tcp, Outcome::Unanswered), 0);
}

#[tokio::test]
async fn a_client_without_a_server_is_closed_and_its_questions_counted() {
    let rig = Rig::new(&["127.0.0.1:1".parse().unwrap()], "").await;
    let mut client = TcpStream::connect(rig.tcp).await.unwrap();
    write_message(&mut client, &question(1, "a.example")).await;
    assert_eq!(read_message(&mut client).await, None);
    while rig.count(Transport::Tcp, Outcome::Unanswered) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn its_own_connections_come_from_no_port_that_the_workload_would_get() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::new(&[listener.local_addr().unwrap()], "").await;
    let mut client = TcpStream::connect(rig.tcp).await.unwrap();
    write_message(&mut client, &question(1, "a.example")).await;
    let (_upstream, peer) = listener.accept().await.unwrap();
    assert!(peer.port() >= 61_000, "a client's question: {peer}");
}

/// The names in rules: a server that cuts every datagram's answer is asked by a connection.
#[tokio::test]
async fn the_resolvers_connections_come_from_no_such_port_either() {
    let (listener, at, udp) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        // It may be another test's by UDP.
        if let Ok(udp) = UdpSocket::bind(at).await {
            break (listener, at, udp);
        }
    };
    let asker = asker(&[at], "");
    asker
        .names
        .enforce(&view(&["a.example"], 1), NameTable::default());
    let mut resolving = Resolving::new(&asker);
    let cut = async {
        let mut buffer = [0; 512];
        loop {
            let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
            let mut said = answer(&buffer[..length], 0, [11, 0, 0, 1]);
            said[2] |= 2;
            udp.send_to(&said, peer).await.unwrap();
        }
    };
    tokio::select! {
        biased;
        accepted = listener.accept() => {
            let (_upstream, peer) = accepted.unwrap();
            assert!(peer.port() >= 61_000, "{peer}");
        }
        () = cut => {}
        () = resolving.turn(&asker) => panic!("asked by datagrams alone"),
    }
}

#[tokio::test]
async fn one_connection_too_many_is_reset() {
    let rig = Rig::new(&[tcp_server(in_pairs).await], "").await;
    let all = Arc::clone(&rig.asker.connections);
    let taken = all
        .try_acquire_many_owned(u32::try_from(tcp::MAX_CONNECTIONS).unwrap())
        .unwrap();
    let mut client = TcpStream::connect(rig.tcp).await.unwrap();
    assert!(client.read_u8().await.is_err());
    drop(taken);
}

#[test]
fn binds_loopback_alone() {
    let dir = tempfile::tempdir().unwrap();
    let off = crate::testing::settings(dir.path(), &[]);
    assert!(!off.dns.on && off.dns.port == 15153);
    let settings = [("OUTRIDER_PROXY_DNS", "on"), ("OUTRIDER_PROXY_DNS_PORT", "0")];
    let (context, ..) = crate::testing::assemble(crate::testing::settings(dir.path(), &settings));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A port that was free by UDP may be another test's by TCP.
    let mut bound = (0..20).map(|_| runtime.block_on(async { Dns::bind(&context) }));
    let dns = bound.find_map(Result::ok).unwrap();
    assert!(!dns.sockets.is_empty());
    for (udp, tcp) in &dns.sockets {
        assert!(udp.local_addr().unwrap().ip().is_loopback());
        assert_eq!(udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    }
}

#[test]
fn ids_are_not_a_sequence() {
    let ids = Ids::default();
    let drawn: Vec<u16> = (0..1_000).map(|_| ids.draw()).collect();
    let ascending = drawn.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((400..600).contains(&ascending), "{ascending}");
    assert!(DnsMetrics::register(&Registry::default()).is_ok());
}
