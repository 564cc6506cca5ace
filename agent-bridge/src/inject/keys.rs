//! What namespaces and pods may say by annotation: key, allowed form, default, who may say it. Messages,
//! `--help` and the checks are all made from this one table.

use super::values as check;

/// One annotation, `outrider.dev/<name>`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name behind the prefix.
    pub name: &'static str,
    /// What is allowed.
    pub form: &'static str,
    /// What holds where nobody says anything.
    pub default: &'static str,
    /// Who may say it.
    pub scope: Scope,
    /// What it does.
    pub help: &'static str,
    /// Whether a text is allowed.
    check: fn(&str) -> bool,
}

/// Who may say it. The cluster always may, and its word comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Namespace and pod.
    Pod,
    /// The namespace; a pod only where its namespace says `podSettings: all`. What opens a hole is here.
    Namespace,
    /// The namespace alone.
    NamespaceOnly,
}

impl Key {
    /// The key of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether a text is allowed.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        (self.check)(text)
    }
}

const PORTS: &str = "\"*\", \"none\", or up to 64 ports and ranges like 80,8000-8100";
const PORT_LIST: &str = "up to 64 ports and ranges like 80,8000-8100";
const CIDRS: &str = "\"*\", or up to 64 networks like 10.0.0.0/8,fd00::/8 without host bits";
const CIDR_LIST: &str = "up to 64 networks like 10.0.0.0/8,fd00::/8 without host bits";
const INTERFACES: &str =
    "up to 64 interface names like eth1,net1: 1 to 15 of letters, digits, . _ -, not lo";
const CPU: &str = "an amount of CPU from 1m to 64, like 100m or 0.5";
const CPU_LIMIT: &str = "none, or an amount of CPU from 1m to 64, like 100m or 0.5";
const MEMORY: &str = "an amount of memory from 16Mi to 64Gi, like 128Mi";

const fn key(
    name: &'static str,
    scope: Scope,
    (form, default): (&'static str, &'static str),
    check: fn(&str) -> bool,
    help: &'static str,
) -> Key {
    Key { name, form, default, scope, help, check }
}

use Scope::{Namespace, NamespaceOnly, Pod};

/// Every key, in the order of `--help`.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("interceptionMode", Pod, ("REDIRECT or TPROXY", "REDIRECT"),
        |text| matches!(text, "REDIRECT" | "TPROXY"),
        "how inbound connections reach the proxy; TPROXY keeps the client's address and gives the proxy NET_RAW"),
    key("includeInboundPorts", Namespace, (PORTS, "*"), check::ports, "inbound ports to capture"),
    key("excludeInboundPorts", Namespace, (PORT_LIST, ""), check::port_list, "inbound ports that bypass the proxy"),
    key("includeOutboundPorts", Namespace, (PORTS, "*"), check::ports, "outbound ports to capture"),
    key("excludeOutboundPorts", Namespace, (PORT_LIST, ""), check::port_list, "outbound ports that bypass the proxy"),
    key("includeOutboundIPRanges", Namespace, (CIDRS, "*"), check::networks, "outbound networks to capture"),
    key("excludeOutboundIPRanges", Namespace, (CIDR_LIST, ""), check::network_list,
        "outbound networks that bypass the proxy"),
    key("excludeInterfaces", Namespace, (INTERFACES, ""), check::interfaces,
        "interfaces that bypass the proxy, both ways"),
    key("kubevirtInterfaces", Pod, (INTERFACES, ""), check::interfaces,
        "interfaces of virtual machines: what they send is captured as outbound"),
    key("captureDNS", Pod, ("off, all, or up to 3 addresses of name servers like 10.96.0.10,fd00::a", "off"),
        check::dns, "questions to name servers that go through the proxy"),
    key("guard", Namespace, ("off, tcp or all", "tcp"), |text| matches!(text, "off" | "tcp" | "all"),
        "what is dropped if it would pass uncaptured without being excluded"),
    key("packets", Namespace, ("relay, tap or queue", "relay"), |text| matches!(text, "relay" | "tap" | "queue"),
        "what is not TCP: unseen; seen, with NET_RAW; or decided about, with NET_ADMIN too"),
    key("queue", Namespace, ("open or closed", "closed"), |text| matches!(text, "open" | "closed"),
        "with packets=queue: whether what is not TCP passes while the proxy does not run"),
    key("mode", Namespace, ("discover, monitor or protect", "discover"),
        |text| matches!(text, "discover" | "monitor" | "protect"), "mode until a policy has come"),
    key("firstPolicy", Namespace, ("default or wait", "default"), |text| matches!(text, "default" | "wait"),
        "whether the pod waits for a policy before it starts"),
    key("backend", Namespace, ("iptables or nft", "iptables"), |text| matches!(text, "iptables" | "nft"),
        "tools that install the rules"),
    key("sidecar", Pod, ("auto, native or classic", "auto"), |text| matches!(text, "auto" | "native" | "classic"),
        "whether the proxy is an init container that goes on, which takes Kubernetes 1.29, or an ordinary one"),
    key("classicInit", Namespace, ("first or last", "last"), |text| matches!(text, "first" | "last"),
        "with a classic sidecar: whether init containers run behind the rules, and without network, or before them"),
    key("mailbox", Namespace, ("host-path, csi or empty-dir", "host-path"),
        |text| matches!(text, "host-path" | "csi" | "empty-dir"),
        "volume of the ctrl sockets; with empty-dir no bridge hears of the pod"),
    key("probes", Pod, ("all, tcp or off", "all"), |text| matches!(text, "all" | "tcp" | "off"),
        "which probes ask the proxy, which asks the application: a captured connection is always accepted, and policy \
         denies the node that does not know it"),
    key("metrics", Pod, ("on or off", "on"), |text| matches!(text, "on" | "off"),
        "whether prometheus.io annotations are added where there are none"),
    key("proxyCPU", Pod, (CPU, "20m"), check::cpu, "CPU that the proxy requests"),
    key("proxyCPULimit", Pod, (CPU_LIMIT, "none"), |text| text == "none" || check::cpu(text), "CPU that it may use"),
    key("proxyMemory", Pod, (MEMORY, "32Mi"), check::memory, "memory that it requests"),
    key("proxyMemoryLimit", Pod, (MEMORY, "512Mi"), check::memory, "memory that it may use"),
    key("logLevel", Pod, ("error, warn, info, debug or trace", "info"),
        |text| matches!(text, "error" | "warn" | "info" | "debug" | "trace"), "what it logs"),
    key("drainGrace", Pod, ("a time from 0s to 1h like 500ms, 10s, 2m", "10s"), check::grace,
        "time that open connections get when the pod ends"),
    key("podSettings", NamespaceOnly, ("tuning or all", "tuning"), |text| matches!(text, "tuning" | "all"),
        "whether pods may say what otherwise only their namespace may"),
    key("exempt", NamespaceOnly, (super::neighbours::EXEMPTIONS, ""), super::neighbours::are_exemptions,
        "what containers may do though it gets around the proxy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_every_name_is_there_once() {
        for key in KEYS {
            assert!(key.allows(key.default), "{}", key.name);
            assert!(!key.allows("\u{0}"), "{}", key.name);
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1);
        }
    }
}
