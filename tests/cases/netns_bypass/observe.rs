//! A pod without redirect rules, and a proxy without any capability: connections are learned by their
//! sockets.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Namespace, World, process::run, require_netns, scene::REPORTED, until};

/// Connections of each length.
const CONNECTIONS: usize = 40;
const PORT: u16 = 7000;
/// Bytes that each sends, and gets back.
const REQUEST: [u8; 700] = [1; 700];
const ANSWER: [u8; 300] = [2; 300];

fn serve(listener: &TcpListener) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = listener.accept()?;
        let mut request = REQUEST;
        stream.read_exact(&mut request)?;
        stream.write_all(&ANSWER)?;
        ensure!(stream.read(&mut [0])? == 0, "one request");
    }
    Ok(())
}

/// Connections that each live so long.
fn dial(from: &Namespace, to: SocketAddr, length: Duration) -> Result<()> {
    from.enter(|| {
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(&REQUEST)?;
            let mut answer = ANSWER;
            stream.read_exact(&mut answer)?;
            // How long it lives is what is tested.
            thread::sleep(length);
        }
        Ok(())
    })
}

#[test]
fn conversations_are_learned_without_a_capability() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, mut shop) = (world.pod("web")?, world.pod("shop")?);
    let settings = [("OUTRIDER_PROXY_CAPTURE", "none")];
    for pod in [&mut web, &mut shop] {
        pod.start_proxy_with(&settings)?;
        let tier = pod.metrics()?.sum("outrider_tier", &[("tier", "observe")]);
        ensure!((tier - 1.0).abs() < f64::EPSILON, "tier {tier}");
    }
    let node = world.start_node()?;
    node.connected(&[&web, &shop])?;
    let lengths = [0, 20, 200].map(Duration::from_millis);
    let mut sessions = 0;
    for (v6, length) in [false, true]
        .into_iter()
        .flat_map(|v6| lengths.map(|length| (v6, length)))
    {
        let to = web.at(v6, PORT);
        let listener = web.netns.enter(|| Ok(TcpListener::bind(to)?))?;
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener));
            dial(&shop.netns, to, length)?;
            server
                .join()
                .map_err(|_panic| anyhow::anyhow!("the server panicked"))?
        })?;
        sessions += CONNECTIONS;
        for pod in [&web, &shop] {
            until("the sessions", REPORTED, || {
                let opened = pod.metrics()?.sum("outrider_flows_closed_total", &[]);
                ensure!(
                    opened == sessions as f64,
                    "{}: {opened} of {sessions}, {length:?}",
                    pod.name
                );
                Ok(())
            })?;
        }
    }
    // Every connection was seen, however short, and no byte is missing.
    let want = (sessions as u64, (sessions * (REQUEST.len() + ANSWER.len())) as u64);
    until("the conversation", REPORTED, || {
        let mut rows = node.conversations()?;
        rows.retain(|row| {
            row.port == PORT && row.server == web.workload() && row.client == shop.workload()
        });
        let sums = rows
            .iter()
            .fold((0, 0), |sums, row| (sums.0 + row.sessions, sums.1 + row.bytes));
        ensure!(sums == want, "{sums:?}, not {want:?}: {rows:#?}");
        Ok(())
    })?;
    until("the rule", REPORTED, || {
        let rules = node.rules()?;
        let found = rules.iter().any(|rule| rule.ports == format!("tcp/{PORT}"));
        found.then_some(()).with_context(|| format!("{rules:?}"))
    })?;
    let caps = run(std::process::Command::new("grep")
        .args(["CapEff", &format!("/proc/{}/status", shop.proxy()?.pid())]))?;
    ensure!(caps.contains("0000000000000000"), "{caps}");
    Ok(())
}
