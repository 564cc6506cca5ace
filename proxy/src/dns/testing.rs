//! Name servers and an asker for the tests of this module.

use std::{net::SocketAddr, sync::Arc};

use outrider_model::{Direction, Mode, PolicyAction, RuleId};
use outrider_policy::{AddrSpec, Name, Network, PolicySpec, RuleSpec, Snapshot};
use outrider_relay::PolicyView;
use tokio::{net::UdpSocket, sync::Semaphore};
use tokio_util::task::TaskTracker;

use super::{Asker, DnsMetrics, Ids, Names, resolvers::Resolvers};
use crate::testing::{assemble, settings};

/// A question about a name's A record.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], b"\x01\0\0\x01\0\0\0\0\0\0"].concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend(b"\0\0\x01\0\x01");
    message
}

/// The answer to a question of [`question`]: one address, or an error without any.
pub(super) fn answer(question: &[u8], rcode: u8, address: [u8; 4]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2] = 0x81;
    message[3] = 0x80 | rcode;
    if rcode == 0 {
        message[7] = 1;
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
        message.extend(address);
    }
    message
}

/// An asker of these servers.
pub(super) fn asker(servers: &[SocketAddr], options: &str) -> Asker {
    let dir = tempfile::tempdir().unwrap();
    let (context, _relay, _state) = assemble(settings(dir.path(), &[]));
    Asker {
        resolvers: Resolvers::parse(format!("nameserver 127.0.0.1\n{options}").as_bytes(), servers),
        names: Arc::<Names>::clone(&context.names),
        metrics: DnsMetrics::clone(&context.dns),
        mark: None,
        legs: Arc::default(),
        ids: Ids::default(),
        questions: Arc::new(Semaphore::new(super::udp::MAX_QUESTIONS)),
        connections: Arc::new(Semaphore::new(super::tcp::MAX_CONNECTIONS)),
    }
}

/// A name server that sends what `reply` makes of each question.
pub(super) async fn server(reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            for message in reply(&buffer[..length]) {
                socket.send_to(&message, client).await.unwrap();
            }
        }
    });
    address
}

fn rule(id: u32, about: &str) -> RuleSpec {
    RuleSpec {
        id: RuleId(id),
        client: AddrSpec::Any,
        server: AddrSpec::Any,
        ports: (0, u16::MAX),
        proto: None,
        action: PolicyAction::Allow,
        direction: Direction::Outbound,
        fqdn: Some(Name::new(about).unwrap()),
        vhost: false,
        apps: Vec::new(),
    }
}

/// A policy that allows these names and denies everything else.
pub(super) fn view(about: &[&str], version: u64) -> PolicyView {
    let rules = (1..)
        .zip(about)
        .map(|(id, about)| rule(id, about))
        .collect();
    let spec = PolicySpec {
        default_action: PolicyAction::Deny,
        inbound: true,
        outbound: true,
        rules,
        grace: false,
    };
    let snapshot = Snapshot::compile(Some(&spec), &Network::default()).unwrap();
    let snapshot = snapshot.with_version(version);
    PolicyView { snapshot, mode: Mode::Protect, managed: true, quarantined: false, version }
}
