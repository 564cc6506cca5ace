//! Questions to name servers, captured: a real server answers them as it does without capture, no port
//! is ever taken for another, and what the answers say counts for rules about names.

#[path = "netns_dns/dns.rs"]
mod dns;

use std::{
    collections::HashSet,
    io::{Write as _, stderr},
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use self::dns::{
    QUESTIONS, Seen, ask_tcp, ask_udp, capture, capture_marked, question, questions, serve_knot,
};
use anyhow::{Context as _, Result, ensure};
use outrider_tests::{
    World,
    ctrl::Ctrl,
    exchange::{End, exchange},
    require_netns, until,
};

/// How long one refused or allowed connection may take.
const DIAL: Duration = Duration::from_secs(20);
/// Questions that a connection has under way.
const UNDER_WAY: usize = 25;
/// Questions asked from a socket each.
const FROM_MANY_PORTS: u16 = 400;
/// How long the proxy may take until it has asked for a name itself.
const ASKED: Duration = Duration::from_secs(30);

#[test]
fn a_real_server_answers_as_it_does_without_capture() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut server, mut shop) = (world.pod("dns")?, world.pod("shop")?);
    serve_knot(&mut server, &[])?;
    let asked = questions(QUESTIONS);
    let ask = |shop: &outrider_tests::Pod| -> Result<[Seen; 4]> {
        Ok([
            ask_udp(&shop.netns, server.at(false, 53), &asked)?,
            ask_udp(&shop.netns, server.at(true, 53), &asked[..QUESTIONS / 10])?,
            ask_tcp(&shop.netns, server.at(false, 53), &asked[..QUESTIONS / 10], 1)?,
            ask_tcp(&shop.netns, server.at(true, 53), &asked, UNDER_WAY)?,
        ])
    };
    let direct = ask(&shop)?;
    let truncated = direct[0]
        .answers
        .iter()
        .filter(|answer| answer[2] & 2 != 0)
        .count();
    ensure!(truncated > QUESTIONS / 20, "{truncated} answers that only TCP has whole");
    let servers = [server.at(false, 53), server.at(true, 53)];
    capture(&mut shop, &servers)?;
    let captured = ask(&shop)?;
    for (what, (direct, captured)) in ["udp", "udp over v6", "tcp", "tcp, 25 at once, over v6"]
        .iter()
        .zip(direct.iter().zip(&captured))
    {
        let pairs = direct.answers.iter().zip(&captured.answers);
        let other = pairs
            .filter(|(direct, captured)| direct != captured)
            .count();
        ensure!(direct.answers.len() == captured.answers.len() && other == 0, "{what}: {other}");
        let ratio = captured.median.as_secs_f64() / direct.median.as_secs_f64();
        let (direct, captured) = (direct.median, captured.median);
        writeln!(
            stderr(),
            "{what}: direct {direct:?}, captured {captured:?}, {ratio:.2} times (medians)"
        )?;
    }
    let metrics = shop.metrics()?;
    let count = |transport: &str, outcome: &str| {
        let labels = [("transport", transport), ("outcome", outcome)];
        metrics.sum("outrider_dns_queries_total", &labels)
    };
    let all = QUESTIONS as f64;
    ensure!(count("tcp", "answered") == all * 1.1, "tcp: {}", count("tcp", "answered"));
    ensure!(count("udp", "answered") >= all * 1.1, "udp: {}", count("udp", "answered"));
    for outcome in ["unanswered", "overflow", "malformed", "undelivered"] {
        ensure!(count("udp", outcome) + count("tcp", outcome) == 0.0, "{outcome}");
    }
    ensure!(metrics.sum("outrider_dns_addresses_learned_total", &[]) > 1_000.0);
    Ok(())
}

#[test]
fn with_a_secret_mark_questions_are_answered_too() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut server, mut shop) = (world.pod("dns")?, world.pod("shop")?);
    serve_knot(&mut server, &[])?;
    let asked = questions(20);
    let servers = [server.at(false, 53), server.at(true, 53)];
    capture_marked(&mut shop, &servers, "0x5ec4e7")?;
    for at in servers {
        ask_udp(&shop.netns, at, &asked)?;
        ask_tcp(&shop.netns, at, &asked, 1)?;
    }
    let labels = [("outcome", "answered")];
    let answered = shop.metrics()?.sum("outrider_dns_queries_total", &labels);
    ensure!(answered == 80.0, "{answered} of 80 questions went through the proxy");
    Ok(())
}

#[test]
fn the_workloads_ports_and_the_proxys_own_are_never_taken_for_each_other() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (server, mut shop) = (world.pod("dns")?, world.pod("shop")?);
    capture(&mut shop, &[server.at(false, 53), server.at(true, 53)])?;
    // So few ports that the proxy's own questions must use those of the workload's, with conntrack
    // still remembering them.
    shop.netns
        .sysctl("net/ipv4/ip_local_port_range", "'40000 40023'")?;
    for v6 in [false, true] {
        let stop = AtomicBool::new(false);
        let address = SocketAddr::new(server.ip(v6), 53);
        let socket = server.netns.enter(|| Ok(UdpSocket::bind(address)?))?;
        let (asked_from, seen_from) = std::thread::scope(|scope| {
            let upstream = scope.spawn(|| echo(&socket, &stop));
            let asked = shop.netns.enter(|| ask_from_many_ports(address));
            stop.store(true, Relaxed);
            let seen = upstream.join().ok().context("the server panicked")?;
            anyhow::Ok((asked?, seen?))
        })?;
        let both = asked_from.intersection(&seen_from).count();
        ensure!(both > 4, "v6 {v6}: asked from {asked_from:?}, forwarded from {seen_from:?}");
    }
    // Without zones a question of the workload would pass uncaptured, or one of the proxy come back.
    let taken = shop
        .metrics()?
        .sum("outrider_dns_queries_total", &[("transport", "udp")]);
    ensure!(taken == f64::from(2 * FROM_MANY_PORTS), "{taken} questions were taken");
    Ok(())
}

/// Answers every question with the question, and says from which ports they came.
fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<HashSet<u16>> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (mut ports, mut buffer) = (HashSet::new(), [0; 512]);
    while !stop.load(Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            socket.send_to(&buffer[..length], client)?;
            ports.insert(client.port());
        }
    }
    Ok(ports)
}

/// Asks questions, each from a socket of its own; every one must be answered.
fn ask_from_many_ports(server: SocketAddr) -> Result<HashSet<u16>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut ports = HashSet::new();
    for id in 0..FROM_MANY_PORTS {
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(DIAL))?;
        ports.insert(socket.local_addr()?.port());
        let asked = question(id, &format!("n{id}.example"), 1, false);
        socket.send(&asked)?;
        let mut buffer = [0; 512];
        let length = socket
            .recv(&mut buffer)
            .with_context(|| format!("question {id}"))?;
        ensure!(buffer[..2] == asked[..2] && buffer[12..length] == asked[12..], "answer {id}");
    }
    Ok(ports)
}

#[test]
fn a_rule_about_a_name_holds_for_the_addresses_that_the_pod_was_told() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut server, mut web) = (world.pod("dns")?, world.pod("web")?);
    let (mut shop, mut cache) = (world.pod("shop")?, world.pod("cache")?);
    web.serve_nginx()?;
    cache.serve_redis()?;
    let records = [
        format!("a.wild A {}", web.ip(false)),
        format!("b.wild AAAA {}", web.ip(true)),
        format!("exact A {}", cache.ip(false)),
    ];
    serve_knot(&mut server, &records)?;
    capture(&mut shop, &[server.at(false, 53)])?;
    let ctrl = Ctrl::connect(&shop.mailbox)?;
    for request in policy(&shop) {
        ctrl.send(request.as_bytes())?;
    }
    let dial = |address: SocketAddr| -> Result<bool> {
        Ok(exchange(&shop.netns, address, b"PING\r\n\r\n", DIAL)?.end == End::Closed)
    };
    until("the policy in force", ASKED, || {
        ensure!(!dial(web.at(false, 80))?, "still allowed");
        Ok(())
    })?;
    for (v6, name, kind) in [(false, "a.wild.example", 1), (true, "b.wild.example", 28)] {
        ensure!(!dial(web.at(v6, 80))?, "{name}: allowed before anybody asked");
        let asked = [question(7, name, kind, false)];
        let seen = ask_udp(&shop.netns, server.at(false, 53), &asked)?;
        ensure!(seen.answers[0][7] == 1, "{name}: {:?}", seen.answers);
        ensure!(dial(web.at(v6, 80))?, "{name}: refused right after the answer");
    }
    // An exact name in a rule is asked for by the proxy itself.
    until("the exact name to be known", ASKED, || {
        let seen = exchange(&shop.netns, cache.at(false, 6379), b"PING\r\nQUIT\r\n", DIAL)?;
        ensure!(seen.received.starts_with(b"+PONG"), "{seen:?}");
        Ok(())
    })
}

#[test]
fn a_rule_about_a_name_holds_by_what_a_tap_sees_where_nothing_is_captured() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut server, mut web) = (world.pod("dns")?, world.pod("web")?);
    let mut shop = world.pod("shop")?;
    web.serve_nginx()?;
    let records = [format!("a.wild A {}", web.ip(false)), format!("b.wild AAAA {}", web.ip(true))];
    serve_knot(&mut server, &records)?;
    shop.init()?;
    let asked = server.ip(false).to_string();
    shop.start_proxy_as("-all,+net_raw", &[("OUTRIDER_PROXY_DNS_SERVERS", &asked)])?;
    let ctrl = Ctrl::connect(&shop.mailbox)?;
    for request in policy(&shop) {
        ctrl.send(request.as_bytes())?;
    }
    let dial = |v6: bool| -> Result<bool> {
        let address = web.at(v6, 80);
        Ok(exchange(&shop.netns, address, b"PING\r\n\r\n", DIAL)?.end == End::Closed)
    };
    until("the policy in force", ASKED, || {
        ensure!(!dial(false)?, "still allowed");
        Ok(())
    })?;
    for (v6, name, kind) in [(false, "a.wild.example", 1), (true, "b.wild.example", 28)] {
        let asked = [question(7, name, kind, false)];
        // A server that is none of the pod's says the same, and nothing follows from it.
        ask_udp(&shop.netns, server.at(true, 53), &asked)?;
        ensure!(!dial(v6)?, "{name}: allowed by a server that is not the pod's");
        // The tap may not be open yet: a client asks again.
        until("the answer to count", DIAL, || {
            ask_udp(&shop.netns, server.at(false, 53), &asked)?;
            ensure!(dial(v6)?, "{name}: refused");
            Ok(())
        })?;
    }
    let seen = [("transport", "wire"), ("outcome", "answered")];
    let answered = shop.metrics()?.sum("outrider_dns_queries_total", &seen);
    ensure!(answered >= 2.0, "{answered} answers were overheard");
    Ok(())
}

/// Protect: everything outbound is denied but what two rules about names allow.
fn policy(shop: &outrider_tests::Pod) -> [String; 3] {
    let mac = &shop.addresses.mac;
    let rule = |id: u32, name: &str, client: String, any: &str| {
        format!(
            r#"{{"id":{id},"sip":"{client}","dip":"{any}","port":0,"portr":65535,"proto":6,
            "action":2,"ingress":false,"fqdn":"{name}"}}"#
        )
    };
    let v4 = shop.ip(false).to_string();
    let rules =
        [rule(1, "*.wild.example", v4.clone(), "0.0.0.0"), rule(2, "exact.example", v4, "0.0.0.0")];
    let rules6 = rule(3, "*.wild.example", shop.ip(true).to_string(), "::");
    [
        format!(
            r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{mac}","ucmac":"","bcmac":"","oldmac":"","pmac":"","pips":null}}}}"#
        ),
        format!(r#"{{"ctrl_cfg_mac":{{"macs":["{mac}"],"tap":false}}}}"#),
        format!(
            r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,"defact":7,"dir":3,"mac":["{mac}"],"rules":[{}],"rules6":[{rules6}],"grace":false}}}}"#,
            rules.join(",")
        ),
    ]
}
