//! Reports to a controller of another make: Python's gRPC, over mutual TLS.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use outrider_model::{AppId, PolicyAction, Severity, ThreatId};
use outrider_wire::{
    Connection, ConnectionFlags, Connections, EtherType, IpFqdnUpdate, SeverityCode, Text,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    grpc_python::{generate, python, root},
    grpc_tls::{Authority, use_certificates},
    port::free_port,
    proxy::Proxy,
    reports::{batch, encode, row},
    world::{Running, World, mac},
};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// A controller's files, whether it runs or not.
struct Controller {
    python: PathBuf,
    generated: PathBuf,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Controller {
    /// One with certificates of `theirs` that trusts `ours`; it does not run yet. `None` without
    /// Python.
    async fn new(world: &World, (theirs, ours): (&Authority, &Authority)) -> Option<Self> {
        let python = python()?;
        let dir = world.path().join("controller");
        theirs.issue(&dir, ours);
        generate(&python, world.path()).await;
        let port = free_port();
        let generated = world.path().to_owned();
        let made = Self { python, generated, dir, port, child: None };
        made.behaves("proper");
        Some(made)
    }

    fn behaves(&self, manner: &str) {
        let (new, path) = (self.dir.join("new"), self.dir.join("manner"));
        std::fs::write(&new, manner).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    async fn start(&mut self) {
        let mut child = Command::new(&self.python)
            .arg(root().join("agent-bridge/tests/bridge/neuvector.py"))
            .args([&self.generated, &self.dir])
            .arg(self.port.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(port, Some(self.port.to_string()));
        self.child = Some(child);
    }

    async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    /// What was told, oldest first.
    fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.join("told")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map(|(whole, _)| whole);
        let lines = whole.unwrap_or_default().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The rows of all reports, each once: a report that is answered late is repeated as it was.
    fn rows(&self) -> Vec<Value> {
        let mut all = rows(&self.told(), "report");
        all.sort_by_key(|row| row["LogUID"].to_string());
        all.dedup_by_key(|row| row["LogUID"].to_string());
        all
    }

    /// Waits until what was told is right.
    async fn until(&self, right: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !right(self) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("what was told stays {:#?}", self.told());
        }
    }
}

fn rows(told: &[Value], call: &str) -> Vec<Value> {
    told.iter()
        .filter(|one| one["call"] == call)
        .flat_map(|one| one["message"]["Connections"].as_array().unwrap().clone())
        .collect()
}

/// 64-bit numbers are text in the JSON of protocol buffers, and absent if they are 0.
fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap(),
        Value::Null => 0,
        value => value.as_u64().unwrap(),
    }
}

fn sum(rows: &[Value], of: &str) -> u64 {
    rows.iter().map(|row| number(&row[of])).sum()
}

/// A world with certificates, and its controller. The bridge is told of it.
async fn scene(ours: &Authority, theirs: &Authority) -> Option<(World, Controller)> {
    let mut world = World::new();
    let controller = Controller::new(&world, (theirs, ours)).await?;
    let files = ours.issue(&world.path().join("bridge"), theirs);
    use_certificates(&mut world, &files);
    point(&mut world, &controller);
    world.pod("cache", 2);
    world.pod("shop", 3);
    Some((world, controller))
}

fn point(world: &mut World, controller: &Controller) {
    world.set("OUTRIDER_BRIDGE_CONTROLLER", format!("localhost:{}", controller.port));
    world.set("OUTRIDER_BRIDGE_CONTROLLER_HOST_ID", "node-7");
}

async fn state_is(bridge: &Running, state: &str) -> Value {
    let status = bridge
        .until("/v1/status", |status| status["controller"]["state"] == state)
        .await;
    status["controller"].clone()
}

/// `cache` says that it served so many sessions.
async fn served(proxy: &Proxy, seq: u64, sessions: u32) {
    let note = encode(Connections { rows: vec![row(sessions, PolicyAction::Learn)] });
    for datagram in batch(7, seq, &[note]) {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(seq).await;
}

fn outbound(to: IpAddr, found: Connection) -> Connection {
    let v4 = to.is_ipv4();
    let from: IpAddr =
        if v4 { Ipv4Addr::new(10, 0, 0, 3).into() } else { "fd00::3".parse().unwrap() };
    Connection {
        epmac: mac(3),
        client_ip: from.into(),
        server_ip: to.into(),
        ether_type: if v4 { EtherType::IPV4 } else { EtherType::IPV6 },
        flags: ConnectionFlags::NONE,
        ..found
    }
}

/// What the two proxies tell: both ends of a flow, a refused one, a threat, one to a name outside.
async fn tell_all(cache: &Proxy, shop: &Proxy) {
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let name = IpFqdnUpdate { ip: outside, name: Text::cut("api.example") };
    shop.tell(&encode(name)).await;
    let threat = Connection {
        severity: SeverityCode::from(Severity::High),
        threat_id: ThreatId::SMUGGLING,
        application: AppId::HTTP,
        server_port: 80,
        ..row(2, PolicyAction::Allow)
    };
    let refused = Connection { application: AppId::NOT_CHECKED, ..row(0, PolicyAction::Deny) };
    let inbound = vec![row(5, PolicyAction::Learn), refused, threat];
    let external = Connection {
        flags: ConnectionFlags::EXTERNAL,
        server_port: 443,
        application: AppId::SSL,
        ..outbound(outside.into(), row(4, PolicyAction::Learn))
    };
    let outbound = vec![
        outbound(Ipv4Addr::new(10, 0, 0, 2).into(), row(5, PolicyAction::Learn)),
        external,
        outbound("2001:db8::9".parse().unwrap(), row(3, PolicyAction::Learn)),
    ];
    for (proxy, rows) in [(cache, inbound), (shop, outbound)] {
        for datagram in batch(7, 1, &[encode(Connections { rows })]) {
            proxy.tell(&datagram).await;
        }
        proxy.hears_ack(1).await;
    }
}

#[tokio::test]
async fn a_controller_of_another_make_comes_to_the_same_sums() {
    let authority = Authority::new();
    let Some((world, mut controller)) = scene(&authority, &authority).await else { return };
    controller.start().await;
    let (cache, shop) =
        (Proxy::start(&world.mailbox("cache")), Proxy::start(&world.mailbox("shop")));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge.proxy_is("shop", "connected").await;
    tell_all(&cache, &shop).await;
    controller
        .until(|controller| controller.rows().len() == 6)
        .await;
    let told = controller.told();
    assert_eq!(told[0]["call"], "admission");
    let asked = &told[0]["message"];
    assert_eq!((&asked["ID"], &asked["HostID"]), (&"outrider-node-7".into(), &"node-7".into()));
    assert!(number(&asked["HostCPUs"]) > 0 && number(&asked["HostMemory"]) > 1 << 20, "{asked}");

    let rows = controller.rows();
    let of = |key: &str, value: &str| rows.iter().find(|row| row[key] == value).unwrap().clone();
    let external = of("FQDN", "api.example");
    assert_eq!(external["ClientWL"], "shop");
    assert_eq!((&external["Scope"], &external["ExternalPeer"]), (&"global".into(), &true.into()));
    let denied = rows.iter().find(|row| row["PolicyAction"] == 7).unwrap();
    assert_eq!((&denied["Violates"], &denied["ServerWL"]), (&1.into(), &"cache".into()));
    let threat = rows.iter().find(|row| row["ThreatID"].is_number()).unwrap();
    assert_eq!(number(&threat["ThreatID"]), u64::from(ThreatId::SMUGGLING.0));
    assert!(rows.iter().all(|row| row["AgentID"] == "outrider-node-7"));

    // A controller leaves out what a client says of a server that speaks for itself.
    let is_counted = |row: &&Value| row["Ingress"] == true || row["ServerIP"] != "CgAAAg==";
    let counted: Vec<_> = rows.iter().filter(is_counted).cloned().collect();
    let conversations = bridge.get("/v1/conversations").await;
    let conversations = conversations.as_array().unwrap();
    for (theirs, ours) in [("Sessions", "sessions"), ("Bytes", "bytes"), ("Violates", "violations")]
    {
        assert_eq!(sum(&counted, theirs), sum(conversations, ours), "{ours}: {rows:#?}");
    }
    let status = bridge
        .until("/v1/status", |status| number(&status["controller"]["sent"]) == 6)
        .await;
    let status = &status["controller"];
    assert_eq!((&status["state"], number(&status["lost"])), (&"admitted".into(), 0), "{status}");
    assert_eq!((number(&status["interval"]), number(&status["waiting"])), (1, 0), "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn rows_wait_for_a_controller_that_is_away_and_are_counted_once() {
    let authority = Authority::new();
    let Some((world, mut controller)) = scene(&authority, &authority).await else { return };
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    served(&cache, 1, 5).await;
    served(&cache, 2, 6).await;
    let status = state_is(&bridge, "failing").await;
    assert!(status["reason"].as_str().unwrap().contains("no connection"), "{status}");
    assert_eq!(number(&status["waiting"]), 1, "of one key: {status}");
    controller.start().await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 11)
        .await;
    assert_eq!(controller.rows().len(), 1, "merged while they waited");

    controller.kill().await;
    served(&cache, 3, 7).await;
    state_is(&bridge, "failing").await;
    served(&cache, 4, 8).await;
    controller.start().await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 26)
        .await;
    let status = state_is(&bridge, "admitted").await;
    assert_eq!(number(&status["lost"]), 0, "{status}");
    let admissions = controller
        .told()
        .iter()
        .filter(|one| one["call"] == "admission")
        .count();
    assert!(admissions >= 2, "asked again of who came back");

    // What is told just before the end is reported at the end.
    served(&cache, 5, 9).await;
    bridge.stop().await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 35)
        .await;
}

#[tokio::test]
async fn who_is_not_admitted_reports_nothing_and_keeps_what_it_has() {
    let authority = Authority::new();
    let Some((world, mut controller)) = scene(&authority, &authority).await else { return };
    controller.behaves("refuse");
    controller.start().await;
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    served(&cache, 1, 5).await;
    let status = state_is(&bridge, "refused").await;
    assert!(
        status["reason"]
            .as_str()
            .unwrap()
            .contains("no licence for"),
        "{status}"
    );
    let again = |controller: &Controller| controller.told().len() >= 3;
    controller.until(again).await;
    assert!(
        controller
            .told()
            .iter()
            .all(|one| one["call"] == "admission")
    );
    controller.behaves("proper");
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 5)
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_controller_with_the_wrong_certificate_is_told_nothing() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // It is signed by somebody else.
    let Some((mut world, mut controller)) = scene(&ours, &theirs).await else { return };
    let files = ours.issue(&world.path().join("bridge"), &ours);
    use_certificates(&mut world, &files);
    controller.start().await;
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    served(&cache, 1, 5).await;
    let reason_is = async |right: &dyn Fn(&str) -> bool| {
        let reason = |status: &Value| status["controller"]["reason"].as_str().map(right);
        bridge
            .until("/v1/status", |status| reason(status) == Some(true))
            .await;
    };
    reason_is(&|reason| reason.contains("certificate")).await;

    // The right authority, and another name.
    controller.kill().await;
    ours.issue_for("somebody.example", &controller.dir, &ours);
    controller.start().await;
    reason_is(&|reason| reason.contains("somebody.example")).await;

    // It does not know us.
    controller.kill().await;
    ours.issue(&controller.dir, &theirs);
    controller.start().await;
    let others = ["somebody.example", "refused", "no answer", "elapsed"];
    reason_is(&|reason| others.iter().all(|other| !reason.contains(other))).await;
    assert!(controller.told().is_empty(), "{:?}", controller.told());

    controller.kill().await;
    ours.issue(&controller.dir, &ours);
    controller.start().await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 5)
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn renewed_certificates_are_shown_to_the_controller_at_the_next_report() {
    let (old, new, theirs) = (Authority::new(), Authority::new(), Authority::new());
    let Some((world, mut controller)) = scene(&old, &theirs).await else { return };
    std::fs::write(controller.dir.join("ca.crt"), format!("{}{}", old.pem, new.pem)).unwrap();
    controller.start().await;
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    served(&cache, 1, 5).await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 5)
        .await;
    let before = controller.told().last().unwrap()["shown"].clone();

    let dir = world.path().join("bridge");
    std::fs::write(dir.join("tls.key"), "half written").unwrap();
    served(&cache, 2, 6).await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 11)
        .await;
    assert_eq!(controller.told().last().unwrap()["shown"], before, "unusable ones change nothing");

    new.issue(&dir, &theirs);
    served(&cache, 3, 7).await;
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 18)
        .await;
    assert_ne!(controller.told().last().unwrap()["shown"], before);
    let status = state_is(&bridge, "admitted").await;
    assert_eq!(number(&status["lost"]), 0, "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_report_that_is_not_answered_is_repeated_as_it_was() {
    let authority = Authority::new();
    let Some((world, mut controller)) = scene(&authority, &authority).await else { return };
    controller.behaves("swallow");
    controller.start().await;
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    served(&cache, 1, 5).await;
    controller
        .until(|controller| !controller.rows().is_empty())
        .await;
    served(&cache, 2, 6).await;
    bridge
        .until("/v1/status", |status| number(&status["controller"]["repeated"]) > 0)
        .await;
    controller.behaves("hang");
    let hung = |controller: &Controller| controller.told().last().unwrap()["call"] == "admission";
    controller.until(hung).await;
    controller.behaves("proper");
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 11)
        .await;
    let rows = rows(&controller.told(), "report");
    let first = &rows[0]["LogUID"];
    let repeats = rows.iter().filter(|row| row["LogUID"] == *first);
    assert!(repeats.clone().count() > 1, "{rows:#?}");
    assert!(repeats.clone().all(|row| *row == rows[0]), "unchanged: {rows:#?}");
    let status = bridge.get("/v1/status").await;
    assert_eq!(number(&status["controller"]["lost"]), 0, "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn what_the_controller_wants_again_is_sent_again_with_what_came_meanwhile() {
    let authority = Authority::new();
    let Some((world, mut controller)) = scene(&authority, &authority).await else { return };
    controller.start().await;
    let cache = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    for (seq, manner) in [(1, "resend"), (2, "follower"), (3, "no")] {
        controller.behaves(manner);
        served(&cache, seq, 5).await;
        if manner == "no" {
            let reason = |status: &Value| status["controller"]["reason"].to_string();
            bridge
                .until("/v1/status", |status| reason(status).contains("not now"))
                .await;
        } else {
            let refused = |controller: &Controller| !rows(&controller.told(), manner).is_empty();
            controller.until(refused).await;
        }
    }
    controller.behaves("proper");
    controller
        .until(|controller| sum(&controller.rows(), "Sessions") == 15)
        .await;
    let is_done = |status: &Value| number(&status["controller"]["waiting"]) == 0;
    let status = bridge.until("/v1/status", is_done).await;
    assert_eq!(number(&status["controller"]["lost"]), 0, "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn there_is_no_controller_without_certificates_and_none_by_default() {
    let world = World::new();
    let bridge = world.start().await;
    let status = bridge.get("/v1/status").await;
    assert!(status.get("controller").is_none(), "{status}");
    bridge.stop().await;
    let set = |key: &str| (key == "OUTRIDER_BRIDGE_CONTROLLER").then(|| "a.example:18400".into());
    let error = outrider_agent_bridge::settings::Settings::read(set).unwrap_err();
    assert!(error.to_string().contains("needs certificates"), "{error}");
}
