//! The tricks.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use outrider_model::names;
use outrider_tests::{Pod, World, require_netns, until};

use super::{FOUND, findings, found};

/// Reads from a connection for as long as it lives.
const HOLD: &str = "exec 3<>/dev/tcp/$0/$1 || exit 7; read -t 30 -u 3; exit $?";

/// A process that has dialled and holds the connection; killed when dropped.
struct Holder(Child);

impl Holder {
    fn dial(pod: &Pod, setpriv: &[&str], to: std::net::SocketAddr) -> Result<Self> {
        let mut command = pod.netns.command("setpriv");
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        command.args(setpriv).args(["bash", "-c", HOLD, &ip, &port]);
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    /// Whether its connection was reset: bash's `read` then fails at once, and not by its time limit.
    fn ended(&mut self) -> Result<()> {
        let status = self.0.try_wait()?.context("still connected")?;
        ensure!(status.code() == Some(1), "{status}");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn proxy_user() -> [String; 5] {
    let id = names::PROXY_UID.to_string();
    ["--reuid".into(), id.clone(), "--regid".into(), id, "--clear-groups".into()]
}

fn as_proxy(flags: &[String; 5]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Runs a Python script in the pod, as root with every capability.
fn python(pod: &Pod, script: &str) -> Result<()> {
    pod.sh(&format!("python3 - <<'END'\n{script}\nEND"))
        .map(drop)
}

/// A pod with rules and a tapping proxy, and a server without either.
fn stage(world: &mut World, init: &[&str], settings: &[(&str, &str)]) -> Result<(Pod, Pod)> {
    let (mut shop, mut web) = (world.pod("shop")?, world.pod("web")?);
    shop.init_with(init)?;
    shop.start_proxy_with_net_raw(settings)?;
    shop.serve_redis()?;
    web.serve_nginx()?;
    Ok((shop, web))
}

/// Takes the rules away, as a container with `NET_ADMIN` can.
fn without_rules(pod: &Pod, tools: &[&str]) -> Result<()> {
    for tool in tools {
        for table in ["nat", "mangle", "filter", "raw"] {
            pod.sh(&format!("{tool} -t {table} -F"))?;
        }
    }
    Ok(())
}

const FRAMES: &str = "
import socket, struct
def frame(flags, port, source, data=b''):
    tcp = struct.pack('>HHIIBBHHH', 45000, port, 1, 0, 0x50, flags, 1000, 0, 0) + data
    a, b = (socket.inet_aton(ip) for ip in (source, TARGET))
    def sum16(b):
        b += b'\\0' * (len(b) % 2)
        s = sum(struct.unpack('>%dH' % (len(b) // 2), b))
        s = (s >> 16) + (s & 0xffff)
        return ~(s + (s >> 16)) & 0xffff
    c = sum16(a + b + struct.pack('>HH', 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack('>H', c) + tcp[18:]
    ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(tcp), 7, 0, 64, 6, 0, a, b)
    ip = ip[:10] + struct.pack('>H', sum16(ip)) + ip[12:]
    return bytes.fromhex(MAC.replace(':', '')) + b'\\x0a' * 6 + b'\\x08\\0' + ip + tcp
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
out.bind(('eth0', 0))
";

fn frames(pod: &Pod, target: &Pod, calls: &str) -> Result<()> {
    let (ip, mac) = (target.ip(false), &target.addresses.mac);
    python(pod, &format!("TARGET, MAC = '{ip}', '{mac}'\n{FRAMES}\n{calls}"))
}

#[test]
fn each_way_past_the_proxy_is_found() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (shop, web) = stage(&mut world, &["--guard", "off"], &[])?;
    let user = proxy_user();
    // From now on it is known how connections come in.
    web.redis_cli(shop.at(false, 6379), &["ping"])?;
    for v6 in [false, true] {
        found(&shop, &["identity"], || {
            let holder = Holder::dial(&shop, &as_proxy(&user), web.at(v6, 80))?;
            until("the finding", FOUND, || {
                ensure!(findings(&shop, "identity")? > f64::from(u8::from(v6)), "nothing");
                Ok(())
            })?;
            drop(holder);
            Ok(())
        })?;
    }
    // So short that only its first packet is ever seen.
    found(&shop, &["identity", "connection"], || {
        shop.sh(&format!(
            "setpriv {} curl -s -o /dev/null http://{}/",
            user.join(" "),
            web.at(false, 80)
        ))
        .map(drop)
    })?;
    below_the_rules(&shop, &web)?;
    gone_rules(&shop, &web)
}

/// Sockets and frames that no rule sees, and interfaces that no rule names.
fn below_the_rules(shop: &Pod, web: &Pod) -> Result<()> {
    let source = shop.ip(false);
    found(shop, &["packet-socket"], || {
        python(
            shop,
            "
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
time.sleep(0.5)",
        )
    })?;
    found(shop, &["raw-socket"], || {
        python(
            shop,
            "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
time.sleep(0.5)",
        )
    })?;
    for (flags, data) in [("0", ""), ("3", ""), ("0x29", ""), ("4", ", b'out it goes'")] {
        let send = format!("out.send(frame({flags}, 80, '{source}'{data}))");
        found(shop, &["flags"], || frames(shop, web, &send))?;
    }
    found(shop, &["forged"], || frames(shop, web, "out.send(frame(2, 81, '10.71.0.99'))"))?;
    found(shop, &["connection"], || {
        frames(shop, web, &format!("out.send(frame(2, 82, '{source}'))"))
    })?;
    found(shop, &["family"], || {
        python(
            shop,
            "
import socket, time
s = socket.socket(44, socket.SOCK_RAW, 0)
time.sleep(5)",
        )
    })?;
    found(shop, &["interface"], || {
        shop.netns
            .ip("link add side0 type veth peer name side1")
            .map(drop)
    })?;
    found(shop, &["interface"], || shop.netns.ip("addr add 10.99.0.1/24 dev eth0").map(drop))?;
    Ok(())
}

/// Only the rules of IPv6 are gone, then all, in both directions.
fn gone_rules(shop: &Pod, web: &Pod) -> Result<()> {
    without_rules(shop, &["ip6tables"])?;
    let fetch = |v6| shop.fetch(&format!("http://{}/", web.at(v6, 80))).map(drop);
    found(shop, &["connection"], || fetch(true))?;
    without_rules(shop, &["iptables"])?;
    found(shop, &["connection"], || fetch(false))?;
    for v6 in [false, true] {
        let mut holder = None;
        found(shop, &["connection"], || {
            holder = Some(Holder::dial(web, &[], shop.at(v6, 6379))?);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn what_the_operator_left_out_is_said_once_and_the_rest_is_found() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let init = ["--exclude-outbound-ports", "8080,443", "--guard", "off"];
    let (shop, web) = stage(&mut world, &init, &[("OUTRIDER_PROXY_UNCAPTURED_PORTS", "8080")])?;
    let fetch = |scheme: &str, port| {
        shop.curl(&["--http2-prior-knowledge", &format!("{scheme}://{}/", web.at(false, port))])
    };
    found(&shop, &["uncaptured"], || fetch("http", 8080).map(drop))?;
    found(&shop, &["connection"], || fetch("https", 443).map(drop))?;
    fetch("http", 8080)?;
    found(&shop, &["connection"], || fetch("https", 443).map(drop))?;
    ensure!(findings(&shop, "uncaptured")? == 1.0, "a port is said once");
    Ok(())
}

#[test]
fn the_proxys_group_and_what_is_older_than_the_proxy() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut shop, mut web) = (world.pod("shop")?, world.pod("web")?);
    web.serve_nginx()?;
    // No rule is there yet, as when a sidecar is put into a pod that lives.
    let _older = Holder::dial(&shop, &[], web.at(false, 80))?;
    until("the connection", FOUND, || {
        let seen = shop.sh("ss -Htn state established")?;
        ensure!(seen.contains(":80"), "{seen}");
        Ok(())
    })?;
    // No capability: the sockets alone tell.
    shop.start_proxy()?;
    found(&shop, &["older"], || Ok(())).or_else(|_| {
        ensure!(findings(&shop, "older")? == 1.0, "not found");
        Ok(())
    })?;
    shop.init_with(&["--proxy-gid", "1771", "--guard", "off"])?;
    let flags = ["--regid", "1771", "--clear-groups"];
    let mut holder = None;
    found(&shop, &["connection"], || {
        holder = Some(Holder::dial(&shop, &flags, web.at(false, 80))?);
        Ok(())
    })
}

#[test]
fn in_protect_connections_past_the_proxy_are_reset() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let settings = [("OUTRIDER_DEFAULT_MODE", "protect")];
    let init = ["--guard", "off", "--exclude-outbound-ports", "443"];
    let (shop, web) = stage(&mut world, &init, &settings)?;
    let user = proxy_user();
    let reset = |what: &str, mut holder: Holder| until(what, FOUND, || holder.ended());
    for v6 in [false, true] {
        let what = format!("a reset of the proxy's user, IPv6 {v6}");
        reset(&what, Holder::dial(&shop, &as_proxy(&user), web.at(v6, 80))?)?;
    }
    reset("a reset of an excluded port", Holder::dial(&shop, &[], web.at(false, 443))?)?;
    without_rules(&shop, &["iptables", "ip6tables"])?;
    reset("a reset without rules", Holder::dial(&shop, &[], web.at(false, 80))?)?;
    reset("a reset without rules", Holder::dial(&shop, &[], web.at(true, 8080))?)?;
    let inbound = Holder::dial(&web, &[], shop.at(false, 6379))?;
    reset("a reset of who came in", inbound)
}
