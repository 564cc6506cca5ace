//! What `--help` teaches.

/// One setting as people read about it.
struct Entry {
    key: &'static str,
    default: &'static str,
    about: &'static str,
}

const fn entry(key: &'static str, default: &'static str, about: &'static str) -> Entry {
    Entry { key, default, about }
}

const ENTRIES: [Entry; 37] = [
    entry("OUTRIDER_CTRL_DIR", "/run/outrider/ctrl", "directory of the ctrl sockets"),
    entry("OUTRIDER_STATE_DIR", "the ctrl directory", "where the last policy is kept"),
    entry("OUTRIDER_DEFAULT_MODE", "discover", "discover, monitor or protect, until a policy came"),
    entry("OUTRIDER_MARK", "none", "mark of the proxy's own packets, a secret of the pod"),
    entry("OUTRIDER_PROXY_WORKERS", "one a core", "threads that run flows"),
    entry("OUTRIDER_PROXY_OUTBOUND_PORT", "15101", "connections the workload opens"),
    entry("OUTRIDER_PROXY_INBOUND_PORT", "15106", "connections that arrive at the workload"),
    entry(
        "OUTRIDER_PROXY_CAPTURE",
        "auto",
        "redirect, tproxy (needs NET_RAW), whichever comes, or none",
    ),
    entry(
        "OUTRIDER_PROXY_PACKETS",
        "auto",
        "what is not TCP: off, tap (NET_RAW), queue (NET_ADMIN too)",
    ),
    entry(
        "OUTRIDER_PROXY_QUEUE_RULE",
        "none",
        "open or closed: what init's queue rules do unanswered",
    ),
    entry(
        "OUTRIDER_PROXY_UNCAPTURED_NETWORKS",
        "none",
        "networks that the redirect rules leave out",
    ),
    entry(
        "OUTRIDER_PROXY_OBSERVE_INTERVAL",
        "1s",
        "between looks at sockets, if nothing else is seen",
    ),
    entry("OUTRIDER_PROXY_UNCAPTURED_PORTS", "none", "TCP ports that the redirect rules leave out"),
    entry(
        "OUTRIDER_PROXY_METER_SYN_FLOOD",
        "800/5/600",
        "connections of one source: off, on or <upper>[/<seconds>[/<lower>]]",
    ),
    entry("OUTRIDER_PROXY_METER_ICMP_FLOOD", "100/1/100", "ICMP requests of all sources"),
    entry("OUTRIDER_PROXY_METER_IP_SRC_SESSION", "off", "flows that one source has open"),
    entry("OUTRIDER_PROXY_METER_TCP_NODATA", "off", "clients that say nothing for 30 s"),
    entry("OUTRIDER_PROXY_METER_PORT_SCAN", "50/60/25", "ports and hosts tried in vain, up to 256"),
    entry("OUTRIDER_PROXY_TPROXY_MARK", "0x6eb", "mark of TPROXY, the same as init's"),
    entry("OUTRIDER_PROXY_ADMIN_PORT", "15100", "admin surface, loopback only"),
    entry("OUTRIDER_PROXY_HEALTH_PORT", "15120", "/metrics, /healthz/live, /healthz/ready"),
    entry("OUTRIDER_PROXY_PROBE_PORTS", "none", "ports that /healthz/app/tcp/<port> answers for"),
    entry(
        "OUTRIDER_PROXY_PROBES",
        "none",
        "what else /healthz/app/ asks the workload, as injection writes it",
    ),
    entry("OUTRIDER_PROXY_DNS", "off", "on where init redirects DNS (OUTRIDER_INIT_DNS)"),
    entry("OUTRIDER_PROXY_DNS_PORT", "15153", "questions to name servers, loopback only"),
    entry("OUTRIDER_PROXY_DNS_SERVERS", "/etc/resolv.conf", "whom to ask: 10.96.0.10,fd00::a"),
    entry(
        "OUTRIDER_PROXY_DRAIN_GRACE",
        "10s",
        "time for open flows after SIGTERM, then they are cut",
    ),
    entry("OUTRIDER_PROXY_CONNECT_TIMEOUT", "10s", "longest wait for a server to accept"),
    entry(
        "OUTRIDER_PROXY_REPORT_ROWS",
        "65536",
        "connection rows that wait for a bridge, 16 to 65536",
    ),
    entry("OUTRIDER_PROXY_HOLD_BYTES", "16384", "most bytes held while a verdict is pending"),
    entry("OUTRIDER_PROXY_HOLD_TIME", "5s", "longest hold; then the default action decides"),
    entry("OUTRIDER_PROXY_HALF_CLOSE_TIMEOUT", "90s", "longest life after one side has ended"),
    entry("OUTRIDER_PROXY_IDLE_TIMEOUT", "off", "longest silence of a flow"),
    entry("OUTRIDER_PROXY_THREATS_ON", "none", "detectors to add, by number or name: 2012,2027"),
    entry("OUTRIDER_PROXY_THREATS_OFF", "none", "detectors to leave out"),
    entry("OUTRIDER_PROXY_LOG", "info", "log filter: info, debug, outrider_relay=debug,info"),
    entry("OUTRIDER_PROXY_FIRST_POLICY", "default", "ready with the default in force, or `wait`"),
];

/// Whether a setting of this name exists.
#[must_use]
pub fn knows(key: &str) -> bool {
    ENTRIES.iter().any(|entry| entry.key == key)
}

/// The text of `--help`.
#[must_use]
pub fn text() -> String {
    let width = ENTRIES
        .iter()
        .map(|entry| entry.key.len())
        .max()
        .unwrap_or(0);
    let mut text = String::from(INTRODUCTION);
    for Entry { key, default, about } in &ENTRIES {
        text.push_str(&format!("  {key:width$}  {about} [{default}]\n"));
    }
    text.push_str(LOOKING_AROUND);
    text
}

const INTRODUCTION: &str = "\
outrider-proxy: the sidecar that sees every TCP flow of its pod

It takes the connections that outrider-init redirects to it, relays them byte for byte, says
which application each one speaks and which rule and threat it met, and stops what policy
forbids if the workload is in Protect. It needs no capability and no flag: run it as uid 1771.

Usage: outrider-proxy [--help | --version]

Settings, from the environment [default]:
";

const LOOKING_AROUND: &str = "
Looking around, from inside the pod:
  curl localhost:15120/metrics             counters
  curl localhost:15120/healthz/ready       whether traffic may come
  curl localhost:15100/status              mode, policy, rights, sums
  curl localhost:15100/flows               what is open now
  curl localhost:15100/config              settings in force
  curl -X POST 'localhost:15100/log?level=debug'

SIGTERM or SIGINT: stop accepting, let flows end within the grace period, cut the rest.
";
