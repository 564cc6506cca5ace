//! Settings of the `bridge` role, read from the environment. Every mistake is reported at once.

use std::{
    fmt::{self, Display},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::IpNet;
use outrider_learn::Group;
use outrider_model::{Mode, names};

use crate::{
    api::review::{self, ReviewSettings},
    csi::{self, CsiSettings},
    export::{self, ExportSettings},
    grpc::tls::Files,
    link::{self, LinkSettings},
    neuvector::{self, ControllerSettings},
    pods::{self, KubeSettings},
};

/// Most entries of a setting that is a list.
const MAX_LISTED: usize = 256;
/// Longest name of an address group.
const MAX_GROUP_NAME: usize = 128;

/// What the bridge was told to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// `OUTRIDER_PODS_DIR`: root of the mailboxes.
    pub pods: PathBuf,
    /// `OUTRIDER_BRIDGE_STORE`: the embedded store's file.
    pub store: PathBuf,
    /// `OUTRIDER_BRIDGE_API`: TCP address of the REST API.
    pub api: SocketAddr,
    /// `OUTRIDER_BRIDGE_SOCKET`: unix socket of the REST API.
    pub socket: PathBuf,
    /// `OUTRIDER_BRIDGE_TOKENS`: file of the tokens that the TCP listener takes.
    pub tokens: Option<PathBuf>,
    /// `OUTRIDER_BRIDGE_GRPC_SOCKET`: unix socket of the gRPC services.
    pub grpc_socket: PathBuf,
    /// `OUTRIDER_BRIDGE_GRPC`: their TCP address, used only with certificates.
    pub grpc: SocketAddr,
    /// `OUTRIDER_BRIDGE_GRPC_CERT`, `_KEY`, `_CA`: certificates of gRPC in both directions.
    pub grpc_tls: Option<Files>,
    /// `OUTRIDER_BRIDGE_METRICS_PORT`: port of `/metrics` and `/healthz`.
    pub metrics_port: u16,
    /// `OUTRIDER_BRIDGE_INTERNAL`: networks that count as internal, besides the workloads' own.
    pub internal: Vec<IpNet>,
    /// `OUTRIDER_BRIDGE_HOSTS`: addresses of nodes.
    pub hosts: Vec<IpAddr>,
    /// `OUTRIDER_BRIDGE_TUNNELS`: the nodes' ends of tunnels, behind which clients are not told
    /// apart.
    pub tunnels: Vec<IpAddr>,
    /// `OUTRIDER_BRIDGE_ADDRESS_GROUPS`: networks that are groups of their own.
    pub address_groups: Vec<(IpNet, Group)>,
    /// `OUTRIDER_BRIDGE_POLICY`: file of policy that people write, for a bridge without a controller.
    pub policy: Option<PathBuf>,
    /// `OUTRIDER_BRIDGE_DEFAULT_MODE`: mode of a group that nobody set one for.
    pub default_mode: Mode,
    /// `OUTRIDER_BRIDGE_LOG`: what to log.
    pub log: String,
    /// `OUTRIDER_BRIDGE_REVIEW…`: who reviews a cluster's tokens.
    pub(crate) review: Option<ReviewSettings>,
    /// `OUTRIDER_EXPORT_…`: where findings are sent.
    pub export: ExportSettings,
    /// `OUTRIDER_BRIDGE_KUBE`, `OUTRIDER_BRIDGE_NODE`: whose pods the API server is asked for.
    pub kube: Option<KubeSettings>,
    /// `OUTRIDER_BRIDGE_CSI…`: where mailboxes are offered as volumes.
    pub csi: Option<CsiSettings>,
    /// `OUTRIDER_BRIDGE_CLUSTER…`: the cluster's controller.
    pub link: Option<Box<LinkSettings>>,
    /// `OUTRIDER_BRIDGE_CONTROLLER…`: whom connections are reported to.
    pub controller: Option<ControllerSettings>,
}

/// Every setting, its default and what it is for, as `--help` shows them.
pub const HELP: [(&str, &str, &str); 19] = [
    ("OUTRIDER_PODS_DIR", names::PODS_DIR, "root of the pods' mailboxes"),
    ("OUTRIDER_BRIDGE_STORE", DEFAULT_STORE, "file of the embedded store"),
    ("OUTRIDER_BRIDGE_API", "127.0.0.1:15180", "TCP address of the REST API"),
    ("OUTRIDER_BRIDGE_SOCKET", DEFAULT_SOCKET, "unix socket of the REST API"),
    (
        "OUTRIDER_BRIDGE_TOKENS",
        "none",
        "file of tokens for TCP, a line `name read|write sha256` each",
    ),
    ("OUTRIDER_BRIDGE_GRPC_SOCKET", DEFAULT_GRPC_SOCKET, "unix socket of the gRPC services"),
    ("OUTRIDER_BRIDGE_GRPC", "[::]:18401", "their TCP address, mutual TLS: needs certificates"),
    ("OUTRIDER_BRIDGE_GRPC_CERT", "none", "our certificate chain for gRPC, PEM"),
    ("OUTRIDER_BRIDGE_GRPC_KEY", "none", "its key, PEM"),
    ("OUTRIDER_BRIDGE_GRPC_CA", "none", "who signs the peers' certificates, PEM"),
    ("OUTRIDER_BRIDGE_GRPC_PEER", "our own", "name that the peers' certificates are for"),
    ("OUTRIDER_BRIDGE_METRICS_PORT", "15190", "port of /metrics and /healthz"),
    ("OUTRIDER_BRIDGE_INTERNAL", "none", "networks that are internal, besides the workloads' own"),
    ("OUTRIDER_BRIDGE_HOSTS", "none", "addresses of nodes"),
    ("OUTRIDER_BRIDGE_TUNNELS", "none", "nodes' tunnel addresses: what comes from them is ingress"),
    (
        "OUTRIDER_BRIDGE_ADDRESS_GROUPS",
        "none",
        "networks with a group of their own: office=192.0.2.0/24,office=198.51.100.0/24",
    ),
    (
        "OUTRIDER_BRIDGE_POLICY",
        "none",
        "file of NetworkRules, groups and modes, read again when it changes; for a bridge without a controller",
    ),
    ("OUTRIDER_BRIDGE_DEFAULT_MODE", "discover", "mode of a group that was given none"),
    ("OUTRIDER_BRIDGE_LOG", "info", "log filter: info, debug, outrider_agent_bridge=debug,info"),
];

/// The rows of all settings.
pub(crate) fn help() -> impl Iterator<Item = &'static (&'static str, &'static str, &'static str)> {
    HELP.iter()
        .chain(&review::HELP)
        .chain(&export::HELP)
        .chain(&neuvector::HELP)
        .chain(&pods::HELP)
        .chain(&csi::HELP)
        .chain(&link::HELP)
}

/// Everything that is wrong with the environment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError(pub Vec<String>);

impl Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the settings: {}", plural(self.0.len()), self.0.join("; "))
    }
}

impl std::error::Error for SettingsError {}

fn plural(mistakes: usize) -> String {
    if mistakes == 1 { "1 mistake".into() } else { format!("{mistakes} mistakes") }
}

impl Settings {
    /// Reads the settings through `lookup`, which gives a variable's text if it is set.
    ///
    /// # Errors
    /// Every variable whose text cannot be used, in one error.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut env = Reader::new(lookup);
        let mut settings = Self {
            pods: env.path("OUTRIDER_PODS_DIR", names::PODS_DIR),
            store: env.path("OUTRIDER_BRIDGE_STORE", DEFAULT_STORE),
            api: env.value(
                "OUTRIDER_BRIDGE_API",
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), names::API_PORT),
            ),
            socket: env.path("OUTRIDER_BRIDGE_SOCKET", DEFAULT_SOCKET),
            tokens: env.optional_path("OUTRIDER_BRIDGE_TOKENS"),
            grpc_socket: env.path("OUTRIDER_BRIDGE_GRPC_SOCKET", DEFAULT_GRPC_SOCKET),
            grpc: env.value(
                "OUTRIDER_BRIDGE_GRPC",
                SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), GRPC_PORT),
            ),
            grpc_tls: env.certificates(),
            metrics_port: env.value("OUTRIDER_BRIDGE_METRICS_PORT", names::BRIDGE_HEALTH_PORT),
            internal: env
                .list("OUTRIDER_BRIDGE_INTERNAL")
                .iter()
                .map(IpNet::trunc)
                .collect(),
            hosts: env.list("OUTRIDER_BRIDGE_HOSTS"),
            tunnels: env.list("OUTRIDER_BRIDGE_TUNNELS"),
            address_groups: env
                .list("OUTRIDER_BRIDGE_ADDRESS_GROUPS")
                .into_iter()
                .map(|AddressGroup(net, group)| (net, group))
                .collect(),
            policy: env.optional_path("OUTRIDER_BRIDGE_POLICY"),
            default_mode: env.value("OUTRIDER_BRIDGE_DEFAULT_MODE", Mode::Discover),
            log: env.value("OUTRIDER_BRIDGE_LOG", "info".to_owned()),
            review: ReviewSettings::read(&mut env),
            export: ExportSettings::read(&mut env),
            kube: None,
            csi: None,
            link: None,
            controller: ControllerSettings::read(&mut env),
        };
        let node = pods::node_name(&mut env);
        settings.kube = KubeSettings::read(&mut env, node.clone());
        settings.csi = CsiSettings::read(&mut env, node.clone());
        let kube = settings.kube.as_ref().map(|kube| kube.source.clone());
        settings.link = LinkSettings::read(&mut env, node, kube).map(Box::new);
        if settings.policy.is_some() && settings.link.is_some() {
            env.errors.push(
                "OUTRIDER_BRIDGE_POLICY is for a bridge without OUTRIDER_BRIDGE_CLUSTER".into(),
            );
        }
        if settings.controller.is_some() && settings.grpc_tls.is_none() {
            env.errors.push(
                "OUTRIDER_BRIDGE_CONTROLLER needs certificates, OUTRIDER_BRIDGE_GRPC_CERT …".into(),
            );
        }
        env.done(settings)
    }
}

/// Names among `set` that look like settings of the bridge and are none: misspelt, most likely.
pub fn unknown(set: impl Iterator<Item = String>) -> Vec<String> {
    let known = |name: &str| help().any(|(key, ..)| *key == name);
    let is_ours =
        |name: &str| name.starts_with("OUTRIDER_BRIDGE_") || name.starts_with(export::PREFIX);
    set.filter(|name| is_ours(name) && !known(name)).collect()
}

/// Default of `OUTRIDER_BRIDGE_STORE`.
pub const DEFAULT_STORE: &str = "/var/lib/outrider/bridge.redb";
/// Default of `OUTRIDER_BRIDGE_SOCKET`.
pub const DEFAULT_SOCKET: &str = "/run/outrider/api.sock";
/// Default of `OUTRIDER_BRIDGE_GRPC_SOCKET`.
pub const DEFAULT_GRPC_SOCKET: &str = "/run/outrider/grpc.sock";
/// Where a node agent's services are.
const GRPC_PORT: u16 = 18401;

/// Reads variables and notes every mistake.
pub(crate) struct Reader<F> {
    lookup: F,
    errors: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// Reads through `lookup`.
    pub(crate) fn new(lookup: F) -> Self {
        Self { lookup, errors: Vec::new() }
    }

    /// What was read, if there was no mistake.
    pub(crate) fn done<T>(self, settings: T) -> Result<T, SettingsError> {
        if self.errors.is_empty() { Ok(settings) } else { Err(SettingsError(self.errors)) }
    }

    /// Notes a mistake that no single value makes.
    pub(crate) fn mistake(&mut self, text: String) {
        self.errors.push(text);
    }

    /// The value, or the default if there is none.
    pub(crate) fn value<T: FromStr<Err: Display>>(&mut self, key: &str, default: T) -> T {
        let Some(text) = (self.lookup)(key) else { return default };
        text.trim().parse().unwrap_or_else(|error| {
            self.errors.push(format!("{key}={text:?}: {error}"));
            default
        })
    }

    /// The value, if there is one.
    pub(crate) fn option<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<T> {
        let text = (self.lookup)(key)?;
        let read = text.trim().parse();
        read.map_err(|error| self.errors.push(format!("{key}: {error}")))
            .ok()
    }

    /// The value, which must be there.
    pub(crate) fn needed<T: FromStr<Err: Display>>(&mut self, key: &str, unset: &str) -> Option<T> {
        if (self.lookup)(key).is_none() {
            self.errors.push(format!("{key}: {unset}"));
        }
        self.option(key)
    }

    /// An absolute path, or the default.
    pub(crate) fn path(&mut self, key: &str, default: &str) -> PathBuf {
        self.optional_path(key)
            .unwrap_or_else(|| PathBuf::from(default))
    }

    /// An absolute path, if there is one.
    pub(crate) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from((self.lookup)(key)?);
        if !path.is_absolute() {
            self.errors
                .push(format!("{key}={:?}: must be an absolute path", path.display()));
        }
        Some(path)
    }

    /// All three files, or none.
    fn certificates(&mut self) -> Option<Files> {
        const KEYS: [&str; 3] =
            ["OUTRIDER_BRIDGE_GRPC_CERT", "OUTRIDER_BRIDGE_GRPC_KEY", "OUTRIDER_BRIDGE_GRPC_CA"];
        let missing: Vec<_> = KEYS
            .into_iter()
            .filter(|key| (self.lookup)(key).is_none())
            .collect();
        let peer = self.option("OUTRIDER_BRIDGE_GRPC_PEER");
        if missing.len() == KEYS.len() {
            return None;
        }
        if !missing.is_empty() {
            self.errors.push(format!(
                "certificates of gRPC come in threes: {} missing",
                missing.join(", ")
            ));
        }
        let [cert, key, ca] = KEYS.map(|key| self.path(key, "/"));
        Some(Files { cert, key, ca, peer })
    }

    /// A list, joined by commas or blanks.
    pub(crate) fn list<T: FromStr<Err: Display>>(&mut self, key: &str) -> Vec<T> {
        let Some(text) = (self.lookup)(key) else { return Vec::new() };
        let mut found = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(one) => found.push(one),
                Err(error) => self.errors.push(format!("{key}: {part:?}: {error}")),
            }
        }
        if found.len() > MAX_LISTED {
            self.errors
                .push(format!("{key}: more than {MAX_LISTED} entries"));
        }
        found
    }
}

/// `name=network`.
struct AddressGroup(IpNet, Group);

impl FromStr for AddressGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, network) = text.split_once('=').ok_or("must be name=network")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let reserved = [Group::EXTERNAL, Group::NODES];
        let is_free = !name.starts_with("nv.") && !reserved.contains(&name);
        if name.is_empty() || name.len() > MAX_GROUP_NAME || !name.bytes().all(is_name) || !is_free
        {
            return Err("a name has letters, digits, - _ and . only, and is not reserved".into());
        }
        let network = network
            .parse::<IpNet>()
            .map_err(|error| error.to_string())?;
        Ok(Self(network.trunc(), Group::named(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::read(|key| {
            pairs
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_the_documented_defaults() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.api, "127.0.0.1:15180".parse().unwrap());
        assert_eq!(settings.metrics_port, 15190);
        assert_eq!(settings.default_mode, Mode::Discover);
        assert!(settings.internal.is_empty());
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let error = read(&[
            ("OUTRIDER_BRIDGE_API", "localhost"),
            ("OUTRIDER_BRIDGE_METRICS_PORT", "99999"),
            ("OUTRIDER_BRIDGE_STORE", "relative.redb"),
            ("OUTRIDER_BRIDGE_INTERNAL", "10.0.0.0/8,ten"),
            ("OUTRIDER_BRIDGE_DEFAULT_MODE", "block"),
        ])
        .unwrap_err();
        assert_eq!(error.0.len(), 5, "{error}");
        assert!(error.to_string().starts_with("5 mistakes"), "{error}");
    }

    #[test]
    fn policy_comes_from_a_file_or_from_the_controller() {
        let file = ("OUTRIDER_BRIDGE_POLICY", "/etc/outrider/policy.json");
        let cluster =
            [("OUTRIDER_BRIDGE_CLUSTER", "outrider.example:18402"), ("OUTRIDER_BRIDGE_NODE", "n1")];
        assert!(read(&[file]).is_ok() && read(&cluster).is_ok());
        let error = read(&[file, cluster[0], cluster[1]]).unwrap_err();
        assert_eq!(error.0.len(), 1, "{error}");
    }

    #[test]
    fn a_misspelt_setting_is_noticed() {
        let set = ["OUTRIDER_BRIDGE_STORE", "OUTRIDER_BRIDGE_STOER", "HOME"];
        assert_eq!(unknown(set.into_iter().map(Into::into)), ["OUTRIDER_BRIDGE_STOER"]);
    }

    #[test]
    fn the_help_names_every_setting_that_is_read() {
        let asked = std::cell::RefCell::new(Vec::new());
        Settings::read(|key| {
            asked.borrow_mut().push(key.to_owned());
            None
        })
        .unwrap();
        let all = help().map(|(key, ..)| *key);
        assert!(asked.into_inner().iter().eq(all));
    }

    #[test]
    fn address_groups_have_names_that_are_free() {
        const KEY: &str = "OUTRIDER_BRIDGE_ADDRESS_GROUPS";
        let settings = read(&[(KEY, "office=192.0.2.9/24,v6=2001:db8::/32")]).unwrap();
        let known: Vec<_> = settings
            .address_groups
            .iter()
            .map(|(net, group)| format!("{group} {net}"))
            .collect();
        assert_eq!(known, ["office 192.0.2.0/24", "v6 2001:db8::/32"]);
        for text in
            ["office", "=10.0.0.0/8", "nv.web.default=10.0.0.0/8", "nodes=10.0.0.0/8", "a=b"]
        {
            assert!(read(&[(KEY, text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn certificates_come_in_threes() {
        assert_eq!(read(&[]).unwrap().grpc_tls, None);
        let error = read(&[("OUTRIDER_BRIDGE_GRPC_CERT", "/tls.crt")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("_KEY, OUTRIDER_BRIDGE_GRPC_CA missing"),
            "{error}"
        );
        let all = read(&[
            ("OUTRIDER_BRIDGE_GRPC_CERT", "/tls.crt"),
            ("OUTRIDER_BRIDGE_GRPC_KEY", "/tls.key"),
            ("OUTRIDER_BRIDGE_GRPC_CA", "/ca.crt"),
        ]);
        assert_eq!(all.unwrap().grpc_tls.unwrap().ca, PathBuf::from("/ca.crt"));
    }

    #[test]
    fn internal_networks_are_masked_and_capped() {
        let settings = read(&[("OUTRIDER_BRIDGE_INTERNAL", "10.1.2.3/8 fd00::1/64")]).unwrap();
        assert_eq!(settings.internal[0].to_string(), "10.0.0.0/8");
        assert_eq!(settings.internal[1].to_string(), "fd00::/64");
        let many = vec!["10.0.0.0/8"; MAX_LISTED + 1].join(",");
        assert!(read(&[("OUTRIDER_BRIDGE_INTERNAL", &many)]).is_err());
    }
}
