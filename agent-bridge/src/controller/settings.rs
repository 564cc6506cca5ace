//! Settings of the `controller` role, read from the environment. Every mistake is reported at once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use outrider_model::names;

use crate::{
    cluster::client::Source,
    settings::{Reader, SettingsError},
};

/// What the controller was told to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// How the API server is reached.
    pub kube: Source,
    /// Where bridges find it.
    pub listen: SocketAddr,
    /// Port of `/metrics` and `/healthz`.
    pub metrics_port: u16,
    /// The namespace it runs in.
    pub namespace: String,
    /// Name of the Lease that says who leads.
    pub lease: String,
    /// What it is called in it, one name a replica.
    pub identity: String,
    /// Where bridges find this replica when it leads, `ip:port`.
    pub address: String,
    /// Names of its certificate.
    pub names: Vec<String>,
    /// The ConfigMap that has every replica's authority.
    pub ca_configmap: String,
    /// The user that bridges are.
    pub bridge_account: String,
    /// What to log.
    pub log: String,
}

/// Every setting, its default and what it is for, as `--help` shows them.
#[rustfmt::skip]
pub const HELP: [(&str, &str, &str); 11] = [
    ("OUTRIDER_CONTROLLER_KUBE", "in-cluster", "how the API server is reached: in-cluster, or a kubeconfig's path"),
    ("OUTRIDER_CONTROLLER_LISTEN", "[::]:18402", "where bridges find it, TLS 1.3"),
    ("OUTRIDER_CONTROLLER_METRICS_PORT", "15190", "port of /metrics and /healthz"),
    ("OUTRIDER_CONTROLLER_NAMESPACE", "outrider", "the namespace it runs in"),
    ("OUTRIDER_CONTROLLER_LEASE", "outrider-controller", "the Lease that says which replica leads"),
    ("OUTRIDER_CONTROLLER_IDENTITY", "the host's name", "what this replica is called in it"),
    ("OUTRIDER_CONTROLLER_ADDRESS", "127.0.0.1", "this replica's address, told to bridges while it leads: the pod's"),
    ("OUTRIDER_CONTROLLER_NAMES", "outrider-controller.<namespace>.svc", "names of its certificate"),
    ("OUTRIDER_CONTROLLER_CA_CONFIGMAP", "outrider-controller-ca", "ConfigMap with every replica's authority, key ca.crt"),
    ("OUTRIDER_CONTROLLER_BRIDGE_ACCOUNT", "system:serviceaccount:<namespace>:outrider-bridge", "the user that bridges are"),
    ("OUTRIDER_CONTROLLER_LOG", "info", "log filter: info, debug, outrider_agent_bridge=debug,info"),
];

/// Where bridges find the controller.
pub const PORT: u16 = 18402;

impl Settings {
    /// Reads the settings through `lookup`, which gives a variable's text if it is set.
    ///
    /// # Errors
    /// Every variable whose text cannot be used, in one error.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut env = Reader::new(lookup);
        let kube = env.value("OUTRIDER_CONTROLLER_KUBE", Source::InCluster);
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
        let listen = env.value("OUTRIDER_CONTROLLER_LISTEN", any);
        let metrics_port = env.value("OUTRIDER_CONTROLLER_METRICS_PORT", names::BRIDGE_HEALTH_PORT);
        let namespace = env.value("OUTRIDER_CONTROLLER_NAMESPACE", "outrider".to_owned());
        let lease = env.value("OUTRIDER_CONTROLLER_LEASE", "outrider-controller".to_owned());
        let identity = env.option("OUTRIDER_CONTROLLER_IDENTITY");
        let identity = identity.unwrap_or_else(host_name);
        let own = IpAddr::from([127, 0, 0, 1]);
        let address = SocketAddr::new(env.value("OUTRIDER_CONTROLLER_ADDRESS", own), listen.port());
        let mut names: Vec<String> = env.list("OUTRIDER_CONTROLLER_NAMES");
        if names.is_empty() {
            names.push(format!("outrider-controller.{namespace}.svc"));
        }
        let ca_configmap =
            env.value("OUTRIDER_CONTROLLER_CA_CONFIGMAP", "outrider-controller-ca".to_owned());
        let bridge_account = env.value(
            "OUTRIDER_CONTROLLER_BRIDGE_ACCOUNT",
            format!("system:serviceaccount:{namespace}:outrider-bridge"),
        );
        let log = env.value("OUTRIDER_CONTROLLER_LOG", "info".to_owned());
        env.done(Self {
            kube,
            listen,
            metrics_port,
            namespace,
            lease,
            identity,
            address: address.to_string(),
            names,
            ca_configmap,
            bridge_account,
            log,
        })
    }
}

/// Names among `set` that look like settings of the controller and are none: misspelt, most likely.
pub fn unknown(set: impl Iterator<Item = String>) -> Vec<String> {
    let known = |name: &str| HELP.iter().any(|(key, ..)| *key == name);
    set.filter(|name| name.starts_with("OUTRIDER_CONTROLLER_") && !known(name))
        .collect()
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "controller".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_setting_that_is_read() {
        let asked = std::cell::RefCell::new(Vec::new());
        let settings = Settings::read(|key| {
            asked.borrow_mut().push(key.to_owned());
            None
        });
        assert!(
            asked
                .into_inner()
                .iter()
                .eq(HELP.map(|(key, ..)| key).iter())
        );
        let settings = settings.unwrap();
        assert_eq!(settings.names, ["outrider-controller.outrider.svc"]);
        assert_eq!(settings.address, "127.0.0.1:18402");
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let wrong = |key: &str| match key {
            "OUTRIDER_CONTROLLER_KUBE" | "OUTRIDER_CONTROLLER_LISTEN" => Some("here".to_owned()),
            "OUTRIDER_CONTROLLER_ADDRESS" => Some("localhost".to_owned()),
            _ => None,
        };
        let error = Settings::read(wrong).unwrap_err();
        assert!(error.to_string().starts_with("3 mistakes"), "{error}");
        let set = ["OUTRIDER_CONTROLLER_LAESE", "OUTRIDER_CONTROLLER_LEASE", "HOME"];
        assert_eq!(unknown(set.into_iter().map(Into::into)), ["OUTRIDER_CONTROLLER_LAESE"]);
    }
}
