//! Everything a pod may try through its mailbox, case by case: refused, counted by reason, and
//! nobody else notices. `docs/bridge.md` has the same table.

use std::{
    net::IpAddr,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, symlink},
    },
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, UnixCredentials, sendmsg};
use outrider_model::PolicyAction;
use outrider_wire::{
    AppUpdate, Connection, Connections, KeepAlive, MeterList, Reply, SessionCount, SessionList,
    ThreatLog, limits::MAX_CONNECTIONS,
};
use serde_json::{Value, json};
use tokio::{net::UnixDatagram, process::Command};

use crate::{
    proxy::Proxy,
    reports::{batch, encode, row},
    world::{Running, World, mac},
};

/// The liar's own row, which is true.
fn honest() -> Connection {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    let (client, server) = (ip(2).into(), ip(9).into());
    Connection {
        epmac: mac(9),
        client_ip: client,
        server_ip: server,
        ..row(1, PolicyAction::Learn)
    }
}

fn rows(rows: Vec<Connection>) -> Vec<u8> {
    encode(Connections { rows })
}

/// What is written into the liar's mailbox, by the process that owns it, and what it counts as.
fn cases() -> Vec<(&'static str, Vec<Vec<u8>>, &'static str, u64)> {
    let victims = row(1000, PolicyAction::Deny);
    let mut lying_length = rows(vec![honest()]);
    lying_length[3] = lying_length[3].wrapping_add(1);
    let mut lying_count = rows(vec![honest()]);
    lying_count[5] = u8::try_from(MAX_CONNECTIONS).unwrap();
    let truncated = |whole: Vec<u8>| (0..whole.len()).map(move |cut| whole[..cut].to_vec());
    let mut trailing = rows(vec![honest()]);
    trailing.push(0);
    let replies: [Reply; 4] = [
        KeepAlive { seq_num: 1 }.into(),
        SessionCount::default().into(),
        SessionList::default().into(),
        MeterList::default().into(),
    ];
    let replies = replies.map(|reply| reply.encode().unwrap()).to_vec();
    let unknown = [0, 14, 63, 68, 255]
        .map(|kind| vec![kind, 0, 0, 4])
        .to_vec();
    let odd_family = Connection { ether_type: outrider_wire::EtherType(0x0806), ..honest() };
    let mut evidence = vec![66, 0, 0, 0];
    evidence.extend(b"{\"flows\":[{]}");
    let length = u16::try_from(evidence.len()).unwrap().to_be_bytes();
    evidence[2..4].copy_from_slice(&length);
    let announced = |count: u16| {
        let (instance, seq) = (outrider_wire::ext::Instance(9), 1);
        encode(outrider_wire::ext::Batch { instance, seq, datagrams: count })
    };
    let replayed = batch(77, 5, &[rows(vec![honest()])]);
    vec![
        ("rows about another pod", vec![rows(vec![victims, victims, honest()])], "foreign-mac", 2),
        (
            "a threat of another pod",
            vec![encode(ThreatLog { epmac: mac(2), ..ThreatLog::default() })],
            "foreign-mac",
            1,
        ),
        (
            "another pod's ports",
            vec![encode(AppUpdate { mac: mac(2), ports: Vec::new() })],
            "foreign-mac",
            1,
        ),
        ("more than any message", vec![vec![7; 8193], vec![7; 60_000]], "malformed", 2),
        ("every truncation", truncated(rows(vec![honest()])).collect(), "malformed", 104),
        ("a tail", vec![trailing], "malformed", 1),
        ("a length that lies", vec![lying_length], "malformed", 1),
        ("a count that lies", vec![lying_count], "malformed", 1),
        ("evidence that is none", vec![evidence], "malformed", 1),
        ("kinds that there are not", unknown, "unknown-kind", 5),
        ("replies among the notifications", replies, "wrong-kind", 4),
        ("a family that there is not", vec![rows(vec![odd_family])], "bad-row", 1),
        ("a batch without end", vec![announced(u16::MAX)], "oversize-batch", 1),
        ("a batch that stops", vec![announced(2), announced(0)], "incomplete-batch", 1),
        ("a batch again", [replayed.clone(), replayed].concat(), "duplicate-batch", 1),
    ]
}

/// How often something was refused, by reason; a case waits for what it adds.
struct Tally<'a> {
    bridge: &'a Running,
    seen: Value,
}

impl Tally<'_> {
    async fn grows(&mut self, case: &str, why: &str, by: u64) {
        let before = self.seen[why].as_u64().unwrap_or_default();
        let grown =
            |status: &Value| status["dropped"][why].as_u64().unwrap_or_default() >= before + by;
        let status = self.bridge.until("/v1/status", grown).await;
        let mut expected = self.seen.clone();
        expected[why] = json!(before + by);
        assert_eq!(status["dropped"], expected, "{case}");
        self.seen = expected;
    }
}

#[tokio::test]
async fn every_lie_is_refused_and_counted_as_what_it_is() {
    let world = World::new();
    world.pod("victim", 2);
    world.pod("liar", 9);
    let victim = Proxy::start(&world.mailbox("victim"));
    let liar = Proxy::start(&world.mailbox("liar"));
    let bridge = world.start().await;
    bridge.proxy_is("victim", "connected").await;
    bridge.proxy_is("liar", "connected").await;
    let mut tally = Tally { bridge: &bridge, seen: json!({}) };
    for (case, datagrams, why, count) in cases() {
        for datagram in &datagrams {
            liar.tell(datagram).await;
        }
        tally.grows(case, why, count).await;
    }
    let path = world.mailbox("liar").join("ctrl_listen.sock");
    tally_of_strangers(&path, &mut tally).await;
    // Once over its share, the liar loses its own: the victim's row is entered all the same.
    let flood: Vec<_> = (0..85).map(|_| honest()).collect();
    let (socket, flood) = (UnixDatagram::unbound().unwrap(), rows(flood));
    for _ in 0..500 {
        socket.send_to(&flood, &path).await.unwrap();
    }
    victim.tell(&rows(vec![row(7, PolicyAction::Learn)])).await;
    let from_outside = |all: &Value| {
        let mut all = all.as_array().unwrap().iter();
        all.any(|one| one["server"] == "default/victim" && one["sessions"] == 7)
    };
    bridge.until("/v1/conversations", from_outside).await;
    assert_eq!(bridge.get("/v1/violations").await, json!([]), "nothing said of the victim");
    bridge.proxy_is("victim", "connected").await;
    bridge.proxy_is("liar", "connected").await;
    bridge.stop().await;
}

/// Another process, and another user.
async fn tally_of_strangers(path: &std::path::Path, tally: &mut Tally<'_>) {
    let told = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "identity::tells_when_asked"])
        .env("OUTRIDER_TEST_TELL", path)
        .output()
        .await
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    tally.grows("another process", "foreign-peer", 1).await;
    // Only root may say that it is somebody else.
    if nix::unistd::geteuid().is_root() {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let who = UnixCredentials::from(nix::libc::ucred {
            pid: std::process::id().cast_signed(),
            uid: 12_345,
            gid: 12_345,
        });
        let lie = rows(vec![honest()]);
        let (to, parts) = (UnixAddr::new(path).unwrap(), [std::io::IoSlice::new(&lie)]);
        let said = [ControlMessage::ScmCredentials(&who)];
        sendmsg(socket.as_raw_fd(), &parts, &said, MsgFlags::empty(), Some(&to)).unwrap();
        tally.grows("another user", "foreign-peer", 1).await;
    }
}

#[tokio::test]
async fn answers_that_were_not_asked_for_or_are_about_others_are_passed_over() {
    let world = World::new();
    world.pod("liar", 9);
    let liar = Proxy::start(&world.mailbox("liar"));
    let bridge = world.start().await;
    bridge.proxy_is("liar", "connected").await;
    let alive = |seq_num| Reply::from(KeepAlive { seq_num }).encode().unwrap();
    let forged = [alive(0), alive(u32::MAX), vec![0xff; 8192], Vec::new(), vec![2, 0, 0, 8]];
    let sessions = [(1, 9), (2, 2)].map(|(id, number)| outrider_wire::Session {
        id,
        epmac: mac(number),
        ..crate::grpc::sessions(9, 1).remove(0)
    });
    let lists = SessionList::split(&sessions).map(|list| Reply::from(list).encode().unwrap());
    liar.answers("ctrl_list_session", forged.into_iter().chain(lists).collect());
    let shown = bridge.get("/v1/sessions?workload=liar").await;
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["dropped"], json!({"foreign-mac": 1}), "{status}");
    bridge.stop().await;
}

/// The bridge's own sockets, swapped for a link or another socket, are its own again within two
/// ticks, and what the link led to is untouched.
#[tokio::test]
async fn sockets_that_the_pod_swaps_are_bound_again() {
    let world = World::new();
    world.pod("victim", 2);
    world.pod("liar", 9);
    let victim = Proxy::start(&world.mailbox("victim"));
    let liar = Proxy::start(&world.mailbox("liar"));
    let bridge = world.start().await;
    bridge.proxy_is("victim", "connected").await;
    bridge.proxy_is("liar", "connected").await;
    let own = world.mailbox("liar").join("ctrl_listen.sock");
    for number in 1..=2_u64 {
        std::fs::remove_file(&own).unwrap();
        let swapped = (number > 1).then(|| UnixDatagram::bind(&own).unwrap());
        if swapped.is_none() {
            symlink(world.mailbox("victim").join("ctrl_listen.sock"), &own).unwrap();
        }
        let put = std::fs::symlink_metadata(&own).unwrap().ino();
        // The number of a link that is gone may be given to what takes its place.
        let is_put =
            |file: std::fs::Metadata| file.is_symlink() || (swapped.is_some() && file.ino() == put);
        let bound_again = async {
            while std::fs::symlink_metadata(&own).map_or(true, is_put) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), bound_again)
            .await
            .unwrap();
        liar.tell(&rows(vec![honest()])).await;
        bridge
            .until("/v1/conversations", |all| {
                let mut all = all.as_array().unwrap().iter();
                all.any(|one| one["server"] == "default/liar" && one["sessions"] == number)
            })
            .await;
    }
    victim.tell(&rows(vec![row(7, PolicyAction::Learn)])).await;
    bridge
        .until("/v1/conversations", |all| all.as_array().unwrap().len() == 2)
        .await;
    assert_eq!(bridge.get("/v1/status").await["dropped"], json!({}));
    bridge.stop().await;
}
