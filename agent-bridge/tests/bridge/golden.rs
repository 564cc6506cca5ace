//! NeuVector's own bytes against the running bridge: a data path that says what the real one said.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use outrider_api::share::{
    ClusFilter, ClusMeter, ClusSession, RpcVoid, enforcer_service_client::EnforcerServiceClient,
};
use outrider_model::MacAddr;
use outrider_wire::{Connection, Notification, request::Request};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{
    grpc::client,
    proxy::{Manner, Proxy},
    world::{Running, World},
};

/// The pods of the golden network.
const ONE: MacAddr = MacAddr([0x0a, 0x58, 0x0a, 0x4d, 0x01, 0x05]);
const TWO: MacAddr = MacAddr([0x0a, 0x58, 0x0a, 0x4d, 0x02, 0x05]);

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "tests", "golden", "ctrl", name]
        .iter()
        .collect()
}

fn json_of(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

/// A datagram of the corpus, and what its independent decoder says is in it.
fn message(name: &str) -> (Vec<u8>, Value) {
    let bytes = std::fs::read(path(&format!("messages/{name}.bin"))).unwrap();
    (bytes, json_of(&format!("messages/{name}.json"))["body"].take())
}

/// The golden network's two pods, behind a data path without our extensions.
async fn scene(world: &World) -> ([Proxy; 2], Running) {
    let pods = [("one", 1, ONE), ("two", 2, TWO)];
    let proxies = pods.map(|(name, number, mac)| {
        let addresses = [format!("10.77.{number}.5"), format!("fd77:{number}::5")];
        world.workload(name, &addresses, mac);
        Proxy::start_as(&world.mailbox(name), Manner::Foreign)
    });
    let bridge = world.start().await;
    bridge.proxy_is("one", "connected").await;
    bridge.proxy_is("two", "connected").await;
    (proxies, bridge)
}

fn of(workload: &str) -> ClusFilter {
    ClusFilter { workload: workload.into(), ..ClusFilter::default() }
}

/// Members of a message, by name.
macro_rules! members {
    ($found:expr, $($name:ident)*) => {
        [$((stringify!($name), json!($found.$name)),)*]
    };
}

/// Fails unless members are what the corpus has under the same names.
fn agree(found: &[(&str, Value)], golden: &Value) {
    for (name, value) in found {
        assert_eq!(*value, golden[*name], "{name} of {golden}");
    }
}

fn bytes_of(ip: &Value) -> Vec<u8> {
    match ip.as_str().unwrap().parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn mac_of(mac: &Value) -> Vec<u8> {
    mac.as_str().unwrap().parse::<MacAddr>().unwrap().0.to_vec()
}

fn is_that_session(found: &ClusSession, golden: &Value) {
    let shown = members!(found, id ip_proto client_port server_port icmp_code icmp_type
        client_state server_state client_pkts server_pkts client_bytes server_bytes application
        age idle life policy_id policy_action client_asm_pkts server_asm_pkts client_asm_bytes
        server_asm_bytes xff_app xff_port);
    agree(&shown, golden);
    assert_eq!(format!("{:#06x}", found.ether_type), golden["ether_type"]);
    for (found, name) in [(&found.client_mac, "client_mac"), (&found.server_mac, "server_mac")] {
        assert_eq!(*found, mac_of(&golden[name]), "{golden}");
    }
    for (found, name) in [(&found.client_ip, "client_ip"), (&found.server_ip, "server_ip")] {
        assert_eq!(*found, bytes_of(&golden[name]), "{golden}");
    }
    let flags = golden["flags"].as_u64().unwrap();
    let bits = [found.ingress, found.tap, found.mid].map(u64::from);
    assert_eq!(bits[0] | bits[1] << 1 | bits[2] << 2, flags & 7, "{golden}");
    let xff: String = found
        .xff_ip
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(golden["xff_ip"].as_str().unwrap().starts_with(&xff), "{golden}");
}

async fn sessions(client: &mut EnforcerServiceClient<Channel>, workload: &str) -> Vec<ClusSession> {
    let mut stream = client
        .get_session_list(of(workload))
        .await
        .unwrap()
        .into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        all.extend(message.sessions);
    }
    all
}

/// Every session list of the corpus, each with what closes it; what is about another pod's MAC is
/// not taken.
#[tokio::test]
async fn lists_of_the_real_data_path_are_read_field_by_field() {
    let world = World::new();
    let (proxies, bridge) = scene(&world).await;
    let mut client = client(&world).await;
    let lists: [(&str, &[&str]); 7] = [
        ("two", &["session_list-full_58", "session_list-last_partial", "session_list-end_2"]),
        ("two", &["session_list-inline", "session_list-end"]),
        ("two", &["session_list-nfq", "session_list-end"]),
        ("two", &["session_list-inline_syn_sent", "session_list-end"]),
        ("one", &["session_list-ipv4_and_ipv6", "session_list-end"]),
        ("one", &["session_list-xff_and_more", "session_list-end"]),
        ("one", &["session_list-end"]),
    ];
    let mut foreign = 0;
    for (pod, names) in lists {
        let (datagrams, bodies): (Vec<_>, Vec<_>) = names.iter().map(|name| message(name)).unzip();
        let (proxy, mac) = if pod == "one" { (&proxies[0], ONE) } else { (&proxies[1], TWO) };
        proxy.answers("ctrl_list_session", datagrams);
        let found = sessions(&mut client, pod).await;
        let all = bodies
            .iter()
            .flat_map(|body| body["list"].as_array().unwrap());
        let (own, others): (Vec<_>, Vec<_>) =
            all.partition(|session| session["epmac"] == mac.to_string());
        assert_eq!(found.len(), own.len(), "{names:?}");
        assert!(own.len() + others.len() > 0 || names.len() == 1, "{names:?}");
        found
            .iter()
            .zip(own)
            .for_each(|(found, golden)| is_that_session(found, golden));
        assert!(found.iter().all(|session| session.workload == pod));
        foreign += others.len();
    }
    let dropped = bridge.get("/v1/status").await["dropped"]["foreign-mac"].clone();
    assert_eq!(dropped.as_u64().unwrap_or_default(), foreign as u64);
    bridge.stop().await;
}

#[tokio::test]
async fn meters_counters_and_statistics_of_the_real_data_path_are_read_field_by_field() {
    let world = World::new();
    let (proxies, bridge) = scene(&world).await;
    let mut client = client(&world).await;
    for (pod, name) in
        [("one", "meter_list-ipv4_icmpv6_ipv6"), ("two", "meter_list-syn_icmp_inline")]
    {
        let proxy = &proxies[usize::from(pod == "two")];
        let ((list, body), (end, _)) = (message(name), message("meter_list-end"));
        proxy.answers("ctrl_list_meter", vec![list, end]);
        let mac = body["list"][0]["epmac"].clone();
        let mut stream = client.get_meter_list(of(pod)).await.unwrap().into_inner();
        let found: Vec<ClusMeter> = stream.message().await.unwrap().unwrap().meters;
        let golden = body["list"].as_array().unwrap();
        let golden: Vec<_> = golden
            .iter()
            .filter(|meter| meter["epmac"] == mac)
            .collect();
        assert_eq!(found.len(), golden.len());
        for (found, golden) in found.iter().zip(golden) {
            let shown =
                members!(found, meter_id count last_count idle span upper_limit lower_limit);
            agree(&shown, golden);
            assert_eq!(found.peer_ip, bytes_of(&golden["peer_ip"]));
            assert_eq!(found.tap, golden["flags"].as_u64().unwrap() & 2 == 2);
        }
    }
    let (counts, body) = message("session_count-13440");
    proxies[0].answers("ctrl_count_session", vec![counts]);
    proxies[1].answers("ctrl_count_session", vec![message("session_count-zero").0]);
    let found = client
        .get_session_counter(RpcVoid {})
        .await
        .unwrap()
        .into_inner();
    let named = json!({
        "cur_sess": found.cur_sessions, "cur_tcp": found.cur_tcp_sessions,
        "cur_udp": found.cur_udp_sessions, "cur_icmp": found.cur_icmp_sessions,
        "cur_ip": found.cur_ip_sessions,
    });
    assert_eq!(named, body);
    counters(&proxies, &mut client).await;
    for name in ["mac_stats-one_mac", "mac_stats-unknown_mac", "mac_stats-sum_of_macs"] {
        statistics(&proxies[0], &mut client, name).await;
    }
    bridge.stop().await;
}

async fn counters(proxies: &[Proxy; 2], client: &mut EnforcerServiceClient<Channel>) {
    let (traffic, body) = message("device_counter-traffic");
    proxies[0].answers("ctrl_counter_device", vec![traffic]);
    proxies[1].answers("ctrl_counter_device", vec![zeroed(message("device_counter-fresh").0)]);
    let found = client
        .get_datapath_counter(RpcVoid {})
        .await
        .unwrap()
        .into_inner();
    let shown = members!(found, rx_packets rx_drop_packets tx_packets tx_drop_packets error_packets
        no_workload_packets tcp_packets tcp_no_session_packets udp_packets icmp_packets
        other_packets assemblys freed_assemblys fragments freed_fragments timeout_fragments
        total_sessions tcp_sessions udp_sessions icmp_sessions ip_sessions drop_meters
        proxy_meters cur_meters cur_log_caches policy_type1_rules policy_type2_rules
        policy_domains limit_drop_conns limit_pass_conns);
    agree(&shown, &body);
    assert_eq!(json!([found.i_pv4_packets, found.i_pv6_packets]), json!([69, 12]), "{body}");
    assert_eq!(json!(found.policy_domain_i_ps), body["policy_domain_ips"]);
}

/// The counters that were not zero even at first would be added to the other's.
fn zeroed(mut counters: Vec<u8>) -> Vec<u8> {
    counters[4..].fill(0);
    counters
}

async fn statistics(proxy: &Proxy, client: &mut EnforcerServiceClient<Channel>, name: &str) {
    let (stats, body) = message(name);
    proxy.answers("ctrl_stats_macs", vec![stats]);
    let found = client.get_stats(of("one")).await.unwrap().into_inner();
    let total = found.total.unwrap();
    let shown = members!(total, session_in session_out session_cur_in session_cur_out packet_in
        packet_out byte_in byte_out);
    agree(&shown, &body);
    for (window, suffix) in [(found.span1, "1"), (found.span12, "12"), (found.span60, "60")] {
        let window = window.unwrap();
        let found = json!([
            window.session_in,
            window.session_out,
            window.packet_in,
            window.packet_out,
            window.byte_in,
            window.byte_out,
        ]);
        let names = ["session_in", "session_out", "packet_in", "packet_out", "byte_in", "byte_out"];
        let golden = names.map(|name| body[format!("{name}{suffix}")].clone());
        assert_eq!(found, json!(golden), "{name} {suffix}");
    }
}

/// What notifications are to come to, by the kind of what is entered.
#[derive(Default)]
struct Expected {
    received: BTreeMap<&'static str, u64>,
    foreign: u64,
    sessions: u64,
    bytes: u64,
}

impl Expected {
    fn count(&mut self, what: &'static str, own: usize, all: usize) {
        *self.received.entry(what).or_default() += own as u64;
        self.foreign += (all - own) as u64;
    }

    /// One datagram, as the mailbox of that pod takes it.
    fn take(&mut self, datagram: &[u8], mac: MacAddr) {
        match Notification::decode_exact(datagram).unwrap() {
            Notification::Connections(list) => {
                let own = |row: &&Connection| row.epmac == mac;
                let rows: Vec<_> = list.rows.iter().filter(own).collect();
                self.count("rows", rows.len(), list.rows.len());
                self.sessions += rows.iter().map(|row| u64::from(row.sessions)).sum::<u64>();
                self.bytes += rows.iter().map(|row| u64::from(row.bytes)).sum::<u64>();
            }
            Notification::ThreatLog(log) => {
                self.count("threats", usize::from(log.epmac == mac), 1);
            }
            Notification::AppUpdate(update) => {
                self.count("app-updates", usize::from(update.mac == mac), 1);
            }
            _ => {
                self.received.entry("names").or_default();
            }
        }
    }
}

/// Everything the real data path told on its own, to the mailboxes of both pods.
#[tokio::test]
async fn notifications_of_the_real_data_path_are_entered_to_the_last_row() {
    let world = World::new();
    let (proxies, bridge) = scene(&world).await;
    let index = json_of("messages/INDEX.json");
    let names = index
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap());
    let mut told: Vec<_> = names
        .map(message_bytes)
        .filter(|datagram| matches!(datagram[0], 1 | 6 | 7 | 11 | 12 | 13))
        .collect();
    told.extend(transcript_notifications());
    let mut expected = Expected::default();
    for datagram in &told {
        for (proxy, mac) in proxies.iter().zip([ONE, TWO]) {
            expected.take(datagram, mac);
            proxy.tell(datagram).await;
            // Each is entered before the next, so that no mailbox's share of the queue fills.
            let rows = expected.received.get("rows").copied().unwrap_or_default();
            let entered = |status: &Value| {
                let count = |name: &str| status["received"][name].as_u64().unwrap_or_default();
                count("rows") == rows && count("datagrams") >= 1
            };
            bridge.until("/v1/status", entered).await;
        }
    }
    let status = bridge
        .until("/v1/status", |status| {
            expected.received.iter().all(|(what, count)| {
                *what == "names" || status["received"][*what].as_u64().unwrap_or_default() == *count
            }) && status["dropped"]["foreign-mac"] == expected.foreign
        })
        .await;
    let dropped = status["dropped"].as_object().unwrap();
    assert!(
        dropped
            .keys()
            .all(|why| ["foreign-mac", "bad-row"].contains(&why.as_str())),
        "{status}"
    );
    assert!(told.len() >= 50 && expected.received["threats"] > 10, "{}", told.len());
    let conversations = bridge.get("/v1/conversations").await;
    let sum = |name: &str| {
        let all = conversations.as_array().unwrap().iter();
        all.map(|one| one[name].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(
        (sum("sessions"), sum("bytes")),
        (expected.sessions, expected.bytes),
        "{conversations}"
    );
    facts(&bridge, &conversations).await;
    bridge.stop().await;
}

/// What a person should find of the transcript's traffic.
async fn facts(bridge: &Running, conversations: &Value) {
    let has = |client: &str, server: &str, app: &str, port: u64| {
        conversations.as_array().unwrap().iter().any(|one| {
            one["client"] == client
                && one["server"] == server
                && one["app"] == app
                && one["port"] == port
        })
    };
    assert!(has("10.77.1.1", "default/one", "Redis", 6379), "{conversations:#}");
    assert!(has("10.77.1.1", "default/one", "HTTP", 8080), "{conversations:#}");
    assert!(has("default/one", "www.example.test", "HTTP", 80), "{conversations:#}");
    let threats = bridge.get("/v1/threats").await;
    let ids: Vec<_> = threats
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].clone())
        .collect();
    for id in [2006, 2013, 2019, 1002] {
        assert!(ids.contains(&json!(id)), "{id} of {ids:?}");
    }
    let workloads = bridge.get("/v1/workloads").await;
    let ports = workloads[0]["ports"].to_string();
    assert!(ports.contains("6379") && ports.contains("Redis"), "{workloads}");
}

fn message_bytes(name: &str) -> Vec<u8> {
    message(name).0
}

fn transcript_notifications() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path("transcripts/pod-lifecycle.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["socket"] == "ctrl_listen")
        .map(|line| {
            let hex = line["hex"].as_str().unwrap();
            let pairs = (0..hex.len()).step_by(2);
            pairs
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect()
        })
        .collect()
}

/// The order in which the real agent programs a data path that has just connected.
#[tokio::test]
async fn a_data_path_is_programmed_in_the_order_of_the_real_agent() {
    let world = World::new();
    let (proxies, bridge) = scene(&world).await;
    let text = std::fs::read_to_string(path("transcripts/pod-lifecycle.jsonl")).unwrap();
    let mut real = Vec::new();
    for line in text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
    {
        let Some(asked) = line["text"].as_str().filter(|_| line["dir"] == "agent->dp") else {
            continue;
        };
        if line["t"].as_f64().unwrap() > 1.0 {
            break;
        }
        let of_two = asked.contains("0a:58:0a:4d:02:05");
        let request = Request::parse_datagram(asked.as_bytes())
            .unwrap()
            .remove(0)
            .request
            .unwrap();
        if !of_two {
            real.push(request.key());
        }
    }
    let ours: Vec<_> = proxies[0].heard().iter().map(Request::key).collect();
    let ours: Vec<_> = ours
        .into_iter()
        .filter(|key| *key != "ctrl_outrider_hello" && *key != "ctrl_del_nfq_port")
        .collect();
    // The keep-alive behind the hello is ours.
    assert_eq!((ours[0], &ours[2..real.len() + 1]), (real[0], &real[1..]));
    bridge.stop().await;
}
