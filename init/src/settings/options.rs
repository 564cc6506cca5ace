//! The settings by name: flag, variable, allowed form, default, meaning. `--help`, error messages and the
//! environment are all made from this one table.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct SettingOption {
    /// Flag, without dashes.
    pub name: &'static str,
    /// Environment variable; the flag wins.
    pub variable: &'static str,
    /// What is allowed.
    pub form: &'static str,
    /// Default, as one would write it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const PORT: &str = "a port from 1 to 65535";
const PORTS: &str = "\"*\", \"none\", or up to 64 ports and ranges like 80,8000-8100";
const PORT_LIST: &str = "up to 64 ports and ranges like 80,8000-8100";
const CIDRS: &str = "\"*\", or up to 64 networks like 10.0.0.0/8,fd00::/8 without host bits";
const CIDR_LIST: &str = "up to 64 networks like 10.0.0.0/8,fd00::/8 without host bits";
const IDS: &str = "up to 64 numbers like 1771,1772";
const GROUPS: &str = "\"*\", or up to 64 group numbers like 1000,1001";
const INTERFACES: &str =
    "up to 64 interface names like eth1,net1: 1 to 15 of letters, digits, . _ -, not lo";
const DNS: &str = "off, all, or up to 64 addresses of name servers like 10.96.0.10,fd00::a";
const NUMBER: &str = "a number from 1 to 4294967295, decimal or hexadecimal like 0x6eb";
const BOOLEAN: &str = "true or false";

const fn setting(
    name: &'static str,
    variable: &'static str,
    form: &'static str,
    default: &'static str,
    help: &'static str,
) -> SettingOption {
    SettingOption { name, variable, form, default, help }
}

/// Every setting, in the order of `--help`.
#[rustfmt::skip]
pub const OPTIONS: &[SettingOption] = &[
    setting("mode", "OUTRIDER_INIT_MODE", "redirect or tproxy", "redirect",
        "How inbound connections reach the proxy: by address translation, or by a transparent socket that \
         keeps the client's address"),
    setting("backend", "OUTRIDER_INIT_BACKEND", "iptables or nft", "iptables",
        "Tools that install the rules: iptables-restore, one transaction per table, or nft, one for everything"),
    setting("iptables-variant", "OUTRIDER_INIT_IPTABLES_VARIANT", "auto, nft or legacy", "auto",
        "Build of the iptables tools; auto takes the one that works and already holds rules"),
    setting("inbound-ports", "OUTRIDER_INIT_INBOUND_PORTS", PORTS, "*",
        "Inbound ports to capture"),
    setting("exclude-inbound-ports", "OUTRIDER_INIT_EXCLUDE_INBOUND_PORTS", PORT_LIST, "",
        "Inbound ports that bypass the proxy"),
    setting("outbound-ports", "OUTRIDER_INIT_OUTBOUND_PORTS", PORTS, "*",
        "Outbound ports to capture, of the networks to capture"),
    setting("exclude-outbound-ports", "OUTRIDER_INIT_EXCLUDE_OUTBOUND_PORTS", PORT_LIST, "",
        "Outbound ports that bypass the proxy"),
    setting("outbound-cidrs", "OUTRIDER_INIT_OUTBOUND_CIDRS", CIDRS, "*",
        "Outbound networks to capture"),
    setting("exclude-outbound-cidrs", "OUTRIDER_INIT_EXCLUDE_OUTBOUND_CIDRS", CIDR_LIST, "",
        "Outbound networks that bypass the proxy"),
    setting("exclude-interfaces", "OUTRIDER_INIT_EXCLUDE_INTERFACES", INTERFACES, "",
        "Interfaces that bypass the proxy, both ways"),
    setting("virtual-interfaces", "OUTRIDER_INIT_VIRTUAL_INTERFACES", INTERFACES, "",
        "Interfaces of virtual machines: what they send is captured as outbound"),
    setting("groups", "OUTRIDER_INIT_GROUPS", GROUPS, "*",
        "Groups whose outbound connections are captured"),
    setting("exclude-groups", "OUTRIDER_INIT_EXCLUDE_GROUPS", IDS, "",
        "Groups whose outbound connections bypass the proxy"),
    setting("dns", "OUTRIDER_INIT_DNS", DNS, "off",
        "Questions to name servers (port 53, udp and tcp) that go to the proxy's DNS listener"),
    setting("guard", "OUTRIDER_INIT_GUARD", "off, tcp or all", "tcp",
        "What is dropped if it would pass uncaptured without being excluded: nothing, TCP, or every protocol \
         (all stops UDP, the pod's own DNS included unless dns is on)"),
    setting("queue", "OUTRIDER_INIT_QUEUE", "off, open or closed", "off",
        "Whether what is not TCP waits for the proxy's verdict, which takes NET_ADMIN of the proxy; while the proxy \
         reads no queue it passes (open) or is dropped (closed)"),
    setting("drop-invalid", "OUTRIDER_INIT_DROP_INVALID", BOOLEAN, "true",
        "Drop TCP segments that conntrack does not understand (with guard all: packets of any protocol)"),
    setting("proxy-uid", "OUTRIDER_INIT_PROXY_UID", IDS, "1771",
        "Users that are the proxy; their connections bypass capture"),
    setting("proxy-gid", "OUTRIDER_INIT_PROXY_GID", IDS, "",
        "Groups that are the proxy; empty by default, a group is easier to join than a user"),
    setting("secret-mark", "OUTRIDER_MARK", NUMBER, "",
        "Mark that the proxy's sockets carry besides the uid; the proxy then needs NET_RAW"),
    setting("outbound-port", "OUTRIDER_INIT_OUTBOUND_PORT", PORT, "15101",
        "The proxy's listener for connections that the workload opens"),
    setting("inbound-port", "OUTRIDER_INIT_INBOUND_PORT", PORT, "15106",
        "The proxy's listener for connections that arrive"),
    setting("dns-port", "OUTRIDER_INIT_DNS_PORT", PORT, "15153",
        "The proxy's DNS listener, on loopback"),
    setting("health-port", "OUTRIDER_INIT_HEALTH_PORT", PORT, "15120",
        "The proxy's health and metrics: the only inbound port that bypasses capture by default"),
    setting("mark", "OUTRIDER_INIT_MARK", NUMBER, "0x6eb",
        "Mark of packets that a transparent socket took; the proxy must use the same"),
    setting("table", "OUTRIDER_INIT_TABLE", NUMBER, "171",
        "Route table behind the mark"),
];

/// The setting of that name.
pub(super) fn option(name: &str) -> SettingOption {
    let found = OPTIONS.iter().find(|option| option.name == name);
    *found.expect("every name that is read is in the table; a test reads them all")
}
