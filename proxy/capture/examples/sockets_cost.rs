//! What a look at the pod's sockets costs with 0, 1 000 and 5 000 connections on loopback, which are
//! two sockets each. Needs root and 10 100 descriptors. Prints a JSON object a run: microseconds a look, median of 20.

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use outrider_capture::{Sockets, Wanted, families, own_inodes, raw_sockets};
use outrider_model::IpProto;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    let listener = TcpListener::bind("127.0.0.1:7000")?;
    let mut open = Vec::new();
    let mut sockets = Sockets::open()?;
    for connections in [0, 1000, 5000] {
        while open.len() < connections {
            let client = TcpStream::connect("127.0.0.1:7000")?;
            open.push((client, listener.accept()?.0));
        }
        for (what, bytes) in [("sockets", false), ("sockets and bytes", true)] {
            let wanted = Wanted { proto: IpProto::TCP, states: &[], bytes };
            let mut seen = 0_u64;
            let took = median(|| {
                seen = 0;
                sockets
                    .look(wanted, |_| seen = seen.saturating_add(1))
                    .map(drop)
            })?;
            report(what, connections, seen, took)?;
        }
        if let Some((client, _)) = open.first() {
            let (local, remote) = (client.local_addr()?, client.peer_addr()?);
            let took = median(|| sockets.find(IpProto::TCP, local, remote).map(drop))?;
            report("one socket", connections, 1, took)?;
        }
        let took = median(|| own_inodes().map(drop))?;
        report("own descriptors", connections, own_inodes()?.len() as u64, took)?;
        let took = median(|| raw_sockets().and_then(|_| families()).map(drop))?;
        report("raw sockets and families", connections, 0, took)?;
    }
    Ok(())
}

fn median<E>(mut work: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let mut took = Vec::new();
    for _ in 0..20 {
        let started = tokio::time::Instant::now();
        work()?;
        took.push(started.elapsed());
    }
    took.sort();
    Ok(took.get(10).copied().unwrap_or_default())
}

fn report(what: &str, connections: usize, seen: u64, took: Duration) -> std::io::Result<()> {
    use std::io::Write;
    let micros = took.as_micros();
    writeln!(
        std::io::stdout(),
        r#"{{"look":"{what}","connections":{connections},"seen":{seen},"microseconds":{micros}}}"#
    )
}
