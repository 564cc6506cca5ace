//! Ports: a proxy that stands for another pod, whose traffic it gets by a pair of interfaces, a tap or
//! a queue of that pod's namespace. NeuVector's own requests make them and take them away.

#![cfg(test)]

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_tests::{Pod, World, ctrl::Ctrl, require_netns, until};
use outrider_wire::{Reply, Session};

/// How long anything may take until it is as it should be.
const SOON: Duration = Duration::from_secs(40);
/// A connection that is not ended by then times out.
const REFUSED: Duration = Duration::from_secs(20);
/// The workload of the golden requests, and the path of its namespace there.
const MAC: &str = "0a:58:0a:4d:01:05";
const PATH: &str = "/proc/4321/ns/net";
/// What such a proxy needs: packet sockets, traffic control and queues, other namespaces, and those of
/// other users' processes.
const CAPABILITIES: &str = "-all,+net_raw,+net_admin,+sys_admin,+sys_ptrace";

/// A client, the pod that is guarded, and the pod whose proxy guards it.
struct Scene {
    client: Pod,
    shop: Pod,
    guard: Pod,
    ctrl: Ctrl,
    /// A process of the guarded pod, by whose number its namespace is found.
    guest: Child,
    _world: World,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone = self.guest.kill();
        let _ended = self.guest.wait();
    }
}

impl Scene {
    fn new(joined: bool) -> Result<Self> {
        let mut world = World::new()?;
        let (client, mut shop) = (world.pod("client")?, world.pod("shop")?);
        let mut guard = world.pod("guard")?;
        shop.netns.ip(&format!("link set eth0 address {MAC}"))?;
        if joined {
            join(&world, &shop, &guard)?;
        }
        shop.serve_nginx()?;
        let guest = shop
            .netns
            .command("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()?;
        guard.start_proxy_as(CAPABILITIES, &[("OUTRIDER_PROXY_CAPTURE", "none")])?;
        let ctrl = Ctrl::connect(&guard.mailbox)?;
        Ok(Self { client, shop, guard, ctrl, guest, _world: world })
    }

    /// Sends a golden request, with the guarded pod's namespace in place of the golden one's.
    fn replay(&self, name: &str) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("golden/ctrl/requests")
            .join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let there = format!("/proc/{}/ns/net", self.guest.id());
        self.ctrl.send(text.replace(PATH, &there).as_bytes())?;
        self.ctrl.keep_alive(7)
    }

    /// Manages the workload: `observe` only, or enforce that all but HTTP is denied.
    fn govern(&self, observe: bool) -> Result<()> {
        self.replay("add_mac_inline.json")?;
        self.ctrl
            .send(br#"{"ctrl_enable_icmp_policy":{"enable_icmp_policy":true}}"#)?;
        let rule = |id: u32, v6: bool| {
            format!(
                r#"{{"id":{id},"sip":"{}","dip":"{}","port":80,"portr":80,"proto":6,"action":2,"ingress":true}}"#,
                self.client.ip(v6),
                self.shop.ip(v6)
            )
        };
        let (default, rules) = (if observe { 1 } else { 7 }, [rule(1, false), rule(2, true)]);
        for request in [
            format!(r#"{{"ctrl_cfg_mac":{{"macs":["{MAC}"],"tap":{observe}}}}}"#),
            format!(
                r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,"defact":{default},"dir":3,"mac":["{MAC}"],"rules":[{}],"rules6":[{}],"grace":false}}}}"#,
                rules[0], rules[1]
            ),
        ] {
            self.ctrl.send(request.as_bytes())?;
        }
        self.ctrl.keep_alive(8)
    }

    fn open(&self, kind: &str, count: f64) -> Result<()> {
        until(&format!("{count} of {kind}"), SOON, || {
            let found = self
                .guard
                .metrics()?
                .sum("outrider_ports", &[("kind", kind)]);
            ensure!(found == count, "{found}");
            Ok(())
        })
    }

    fn frames(&self, outcome: &str) -> Result<f64> {
        let metrics = self.guard.metrics()?;
        Ok(metrics.sum("outrider_pair_frames_total", &[("outcome", outcome)]))
    }

    fn fetches(&self, v6: bool) -> Result<()> {
        let ip = self.shop.ip(v6);
        let host = if v6 { format!("[{ip}]") } else { ip.to_string() };
        let body = self.client.curl_for(
            Duration::from_secs(2),
            &["--fail", "--max-time", "1", &format!("http://{host}/")],
        )?;
        ensure!(body.out.contains("hello from shop"), "{body:?}");
        Ok(())
    }

    /// A denied connection ends at once, whoever opens it and wherever it goes, and does not time out.
    fn is_reset(&self, v6: bool) -> Result<()> {
        for (from, to) in [(&self.client, &self.shop), (&self.shop, &self.client)] {
            let at: SocketAddr = to.at(v6, 4711);
            let error = from
                .netns
                .enter(|| Ok(TcpStream::connect_timeout(&at, REFUSED)))?
                .expect_err("nobody listens there");
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{at}: {error}");
        }
        until("resets are counted", SOON, || {
            let sent = self.guard.metrics()?.sum("outrider_pair_resets_total", &[]);
            ensure!(sent > 0.0, "{sent}");
            Ok(())
        })
    }

    fn pings(&self, v6: bool) -> Result<()> {
        let ip = self.shop.ip(v6).to_string();
        self.client.sh(&format!("ping -q -c 1 -W 1 {ip}")).map(drop)
    }

    /// The session that somebody opened with the guarded pod, of this protocol and port; of ICMP the type
    /// of its request.
    fn session(&self, proto: u8, port: u16) -> Result<Session> {
        // The list ends with another datagram, which is left to this client alone.
        let client = Ctrl::connect(&self.guard.mailbox)?;
        let reply = client.request(br#"{"ctrl_list_session":{}}"#)?;
        let Reply::SessionList(list) = Reply::decode_exact(&reply)? else { bail!("{reply:?}") };
        let shop: IpAddr = self.shop.ip(false);
        let shown = format!("{:?}", list.sessions);
        list.sessions
            .into_iter()
            .find(|session| {
                let icmp = u16::from(session.icmp_type);
                session.ip_proto.0 == proto
                    && port == if proto == 1 { icmp } else { session.server_port }
                    && session.server_ip == shop.into()
            })
            .with_context(|| format!("not among {shown}"))
    }
}

/// Puts the guard's namespace between the pod and the node: the pod's cable ends there, and another one
/// begins.
fn join(world: &World, shop: &Pod, guard: &Pod) -> Result<()> {
    let host = shop.addresses.v4.octets()[3];
    let (node, inside) = (world.node(), guard.netns.name());
    node.ip(&format!("link set veth{host} netns {inside}"))?;
    guard
        .netns
        .ip(&format!("link set veth{host} name vin101-eth0"))?;
    guard.netns.ip("link set vin101-eth0 up")?;
    node.ip(&format!("link add cable type veth peer name vex101-eth0 netns {inside}"))?;
    node.ip("link set cable master br0 up")?;
    guard.netns.ip("link set vex101-eth0 up")?;
    Ok(())
}

/// What traffic control has in a namespace, and how many make its interfaces promiscuous.
fn left_behind(pod: &Pod) -> Result<(String, usize)> {
    let qdiscs = pod.sh("tc qdisc show; for dev in vin101-eth0 vex101-eth0; do tc filter show dev $dev ingress; done")?;
    let links = pod.netns.ip("-d link show")?;
    Ok((qdiscs, links.matches("promiscuity 1").count()))
}

#[test]
fn golden_requests_join_two_interfaces_guard_them_and_let_go() -> Result<()> {
    require_netns!();
    let scene = Scene::new(true)?;
    let before = left_behind(&scene.guard)?;
    ensure!(scene.fetches(false).is_err(), "nobody joins the interfaces yet");
    scene.govern(true)?;
    scene.replay("add_port_pair.json")?;
    scene.open("pair", 1.0)?;
    for v6 in [false, true] {
        until("the kernel's path", SOON, || scene.fetches(v6))?;
        until("everything passes", SOON, || scene.pings(v6))?;
    }
    until("copies are counted", SOON, || {
        let (copies, forwarded) = (scene.frames("copied")?, scene.frames("forwarded")?);
        ensure!(copies > 0.0 && forwarded == 0.0, "{copies} copied, {forwarded} forwarded");
        Ok(())
    })?;
    let session = until("the session is listed", SOON, || scene.session(1, 8))?;
    ensure!(session.epmac.to_string() == MAC, "{session:?}");

    scene.govern(false)?;
    for v6 in [false, true] {
        until("ping is stopped", SOON, || match scene.pings(v6) {
            Ok(()) => bail!("it passes"),
            Err(_stopped) => Ok(()),
        })?;
        until("what a rule allows passes", SOON, || scene.fetches(v6))?;
        ensure!(scene.pings(v6).is_err(), "ping is stopped for good");
    }
    for v6 in [false, true] {
        scene.is_reset(v6)?;
    }
    until("frames are decided about", SOON, || {
        let (dropped, forwarded) = (scene.frames("dropped")?, scene.frames("forwarded")?);
        ensure!(dropped > 0.0 && forwarded > 0.0, "{dropped} dropped, {forwarded} forwarded");
        Ok(())
    })?;

    for (mode, observe) in [("enforced", false), ("observed", true)] {
        scene.govern(observe)?;
        scene.replay("add_port_pair_quarantine.json")?;
        until("quarantine", SOON, || match scene.fetches(false) {
            Ok(()) => bail!("traffic passes ({mode})"),
            Err(_stopped) => Ok(()),
        })?;
        ensure!(scene.fetches(true).is_err() && scene.pings(true).is_err(), "{mode}");
        scene.replay("add_port_pair_nil_quar.json")?;
        until("the quarantine is lifted", SOON, || scene.fetches(false))?;
        until("the quarantine is lifted", SOON, || scene.fetches(true))?;
    }

    scene.replay("del_port_pair.json")?;
    scene.open("pair", 0.0)?;
    let after = left_behind(&scene.guard)?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    ensure!(scene.fetches(false).is_err(), "nobody joins the interfaces any more");
    Ok(())
}

#[test]
fn a_dead_proxy_leaves_the_kernels_path_open_and_the_ring_closed() -> Result<()> {
    require_netns!();
    let mut scene = Scene::new(true)?;
    for (observe, passes) in [(true, true), (false, false)] {
        scene.govern(observe)?;
        scene.replay("add_port_pair.json")?;
        until("it passes", SOON, || scene.fetches(false))?;
        let path = if observe { "copied" } else { "forwarded" };
        until(path, SOON, || {
            ensure!(scene.frames(path)? > 0.0, "none yet");
            scene.fetches(false)
        })?;
        scene.guard.kill_proxy()?;
        ensure!(scene.fetches(false).is_ok() == passes, "observe {observe}");
        scene
            .guard
            .start_proxy_as(CAPABILITIES, &[("OUTRIDER_PROXY_CAPTURE", "none")])?;
        scene.ctrl = Ctrl::connect(&scene.guard.mailbox)?;
    }
    Ok(())
}

#[test]
fn golden_requests_open_a_tap_in_another_namespace_and_close_it() -> Result<()> {
    require_netns!();
    let scene = Scene::new(false)?;
    scene.replay("add_tap_port.json")?;
    scene.govern(true)?;
    scene.open("tap", 1.0)?;
    until("its sessions are listed", SOON, || {
        scene.fetches(false)?;
        scene.pings(false)?;
        let tcp = scene.session(6, 80)?;
        ensure!(tcp.epmac.to_string() == MAC && tcp.application.0 == 1001, "{tcp:?}");
        scene.session(1, 8)
    })?;
    scene.replay("add_tap_port.json")?;
    scene.open("tap", 1.0)?;
    scene.replay("del_tap_port.json")?;
    scene.open("tap", 0.0)?;
    scene.fetches(false)
}

/// Sends frames as they are by the client's interface.
const SEND_FRAMES: &str = "
import socket, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(('eth0', 0))
for frame in sys.argv[1:]:
    out.send(bytes.fromhex(frame))
";

/// A UDP datagram to a port of the guarded pod, in a frame with these VLAN tags, in hexadecimal.
fn tagged(scene: &Scene, tags: &str, port: u16) -> String {
    let mac = |text: &str| text.replace(':', "");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (from, to) = (scene.client.addresses.v4.octets(), scene.shop.addresses.v4.octets());
    let mut header = [&[0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17, 0, 0][..], &from, &to].concat();
    let words = header
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    let folded = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    let datagram = [&[0x9c, 0x40][..], &port.to_be_bytes(), &[0, 16, 0, 0], b"in a tag"].concat();
    let macs = mac(MAC) + &mac(&scene.client.addresses.mac);
    format!("{macs}{tags}0800{}{}", hex(&header), hex(&datagram))
}

#[test]
fn what_is_inside_vlan_tags_is_a_session_too() -> Result<()> {
    require_netns!();
    let scene = Scene::new(false)?;
    scene.replay("add_tap_port.json")?;
    scene.govern(true)?;
    scene.open("tap", 1.0)?;
    scene.pings(false)?;
    let frames = [("8100002a", 7001), ("88a800078100002a", 7002)];
    let frames = frames.map(|(tags, port)| tagged(&scene, tags, port));
    let mut send = scene.client.netns.command("python3");
    let sent = send.args(["-c", SEND_FRAMES]).args(frames).status()?;
    ensure!(sent.success(), "{sent}");
    for port in [7001, 7002] {
        until("the session is listed", SOON, || scene.session(17, port))?;
    }
    Ok(())
}

#[test]
fn golden_requests_take_over_a_queue_in_another_namespace_and_give_it_up() -> Result<()> {
    require_netns!();
    let scene = Scene::new(false)?;
    for family in ["iptables", "ip6tables"] {
        for chain in ["INPUT -i", "OUTPUT -o"] {
            scene.shop.sh(&format!(
                "{family} -A {chain} eth0 -p udp -j NFQUEUE --queue-num 1; {family} -A {chain} eth0 -p tcp -j NFQUEUE --queue-num 1; {family} -A {chain} eth0 -p icmp -j NFQUEUE --queue-num 1"
            ))?;
        }
    }
    ensure!(scene.fetches(false).is_err(), "nobody reads the queue");
    scene.govern(true)?;
    scene.replay("add_nfq_port.json")?;
    scene.open("queue", 1.0)?;
    for v6 in [false, true] {
        until("the queue is read", SOON, || scene.fetches(v6))?;
    }
    until("the session is listed", SOON, || {
        scene.fetches(false)?;
        scene.session(6, 80)
    })?;
    scene.pings(false)?;
    scene.govern(false)?;
    until("ping is stopped", SOON, || match scene.pings(false) {
        Ok(()) => bail!("it passes"),
        Err(_stopped) => Ok(()),
    })?;
    for v6 in [false, true] {
        until("what a rule allows passes", SOON, || scene.fetches(v6))?;
    }
    scene.replay("del_nfq_port.json")?;
    scene.open("queue", 0.0)?;
    ensure!(scene.fetches(false).is_err(), "nobody reads the queue any more");
    Ok(())
}

#[test]
fn a_sidecar_takes_its_own_interface_for_its_own_and_refuses_the_rest() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let mut shop = world.pod("shop")?;
    shop.up()?;
    let ctrl = Ctrl::connect(&shop.mailbox)?;
    let mac = &shop.addresses.mac;
    for request in [
        format!(r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{mac}","pips":null}}}}"#),
        format!(
            r#"{{"ctrl_add_tap_port":{{"netns":"/proc/1/ns/net","iface":"eth0","epmac":"{mac}"}}}}"#
        ),
        format!(
            r#"{{"ctrl_add_nfq_port":{{"netns":"","iface":"eth0","qnum":1,"epmac":"{mac}"}}}}"#
        ),
    ] {
        ctrl.send(request.as_bytes())?;
    }
    ctrl.keep_alive(1)?;
    let ports = |kind: &str| -> Result<f64> {
        Ok(shop.metrics()?.sum("outrider_ports", &[("kind", kind)]))
    };
    ensure!(ports("tap")? + ports("queue")? + ports("missing")? == 0.0, "its own are not opened");
    for netns in ["/proc/1/ns/net", "/etc/passwd", "/run/netns/../../etc/passwd", "/proc/0/ns/net"]
    {
        let other = format!(
            r#"{{"ctrl_add_tap_port":{{"netns":"{netns}","iface":"eth0","epmac":"{MAC}"}}}}"#
        );
        ctrl.send(other.as_bytes())?;
    }
    ctrl.send(
        format!(
            r#"{{"ctrl_add_port_pair":{{"vex_iface":"eth0","vin_iface":"lo","epmac":"{MAC}"}}}}"#
        )
        .as_bytes(),
    )?;
    ctrl.keep_alive(2)?;
    until("all are refused", SOON, || {
        ensure!(ports("missing")? == 5.0, "{}", ports("missing")?);
        let refused = shop.metrics()?.sum("outrider_ports_refused_total", &[]);
        ensure!(refused == 5.0, "{refused} refused");
        Ok(())
    })
}

#[test]
fn quarantine_of_a_sidecar_stops_what_is_not_tcp_and_tcp_that_it_does_not_hold() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (client, mut shop) = (world.pod("client")?, world.pod("shop")?);
    shop.serve_nginx()?;
    shop.init_with(&["--queue", "closed", "--exclude-inbound-ports", "8080"])?;
    let settings =
        [("OUTRIDER_PROXY_QUEUE_RULE", "closed"), ("OUTRIDER_PROXY_UNCAPTURED_PORTS", "8080")];
    shop.start_proxy_as("-all,+net_raw,+net_admin", &settings)?;
    let ctrl = Ctrl::connect(&shop.mailbox)?;
    let mac = &shop.addresses.mac;
    let add = format!(r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{mac}","pips":null}}}}"#);
    ctrl.send(add.as_bytes())?;
    let quarantine = |on: bool| -> Result<()> {
        let text = format!(
            r#"{{"ctrl_add_port_pair":{{"vex_iface":"vex1-eth0","vin_iface":"vin1-eth0","epmac":"{mac}","quar":{on}}}}}"#
        );
        ctrl.send(text.as_bytes())?;
        ctrl.keep_alive(3)
    };
    let pings = |v6: bool| {
        client
            .sh(&format!("ping -q -c 1 -W 1 {}", shop.ip(v6)))
            .map(drop)
    };
    let fetches = || {
        let url = format!("http://{}/", shop.ip(false));
        let seen = client.curl_for(Duration::from_secs(3), &["--fail", "--max-time", "2", &url])?;
        ensure!(seen.out.contains("hello"), "{seen:?}");
        Ok(())
    };
    let works = || -> Result<()> {
        fetches()?;
        pings(false)?;
        pings(true)
    };
    until("traffic before", SOON, works)?;
    let uncaptured = shop.at(false, 8080);
    let mut past = client.netns.enter(|| Ok(TcpStream::connect(uncaptured)?))?;
    past.set_read_timeout(Some(SOON))?;
    quarantine(true)?;
    let ended = past.read(&mut [0; 1]).map_err(|error| error.kind());
    ensure!(ended == Err(ErrorKind::ConnectionReset), "past the proxy: {ended:?}");
    until("quarantine", SOON, || {
        let passed = [fetches().is_ok(), pings(false).is_ok(), pings(true).is_ok()];
        ensure!(passed == [false; 3], "HTTP, v4 and v6 echoes passed: {passed:?}");
        Ok(())
    })?;
    quarantine(false)?;
    until("traffic after", SOON, works)
}
