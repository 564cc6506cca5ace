//! Settings of the `webhook` role, read from the environment. Every mistake is reported at once.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use outrider_model::names;

use crate::{
    cluster::client::{MaybeSource, Source},
    inject::{
        Cluster, Exemption, Images, Injection, MAX_VALUE, Version,
        keys::{Key, Scope},
    },
    settings::{Reader, SettingsError},
};

/// What the webhook was told to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Where the API server finds it.
    pub listen: SocketAddr,
    /// Port of `/metrics` and `/healthz`.
    pub metrics_port: u16,
    /// Certificate chain and key, if they are given.
    pub given: Option<Given>,
    /// Who signs the API server's certificate; without it anybody may ask.
    pub client_ca: Option<PathBuf>,
    /// Names that the API server calls it by.
    pub names: Vec<String>,
    /// Where the authority of a certificate of our own making is written, PEM.
    pub bundle: Option<PathBuf>,
    /// Where labels and annotations of namespaces come from.
    pub namespaces: Namespaces,
    /// The API server, if it is asked for namespaces and versions and told authorities and refusals.
    pub kube: Option<Source>,
    /// Name of the two webhook configurations whose `caBundle` is kept.
    pub configuration: String,
    /// What holds for the cluster.
    pub cluster: Cluster,
    /// What to log.
    pub log: String,
}

/// Files of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Where labels and annotations of namespaces come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Namespaces {
    /// Nowhere: what the path of the call says has to do.
    None,
    /// A file, as `kubectl get namespaces -o json` writes it; read again when it changes.
    File(PathBuf),
}

/// Every setting, its default and what it is for, as `--help` shows them.
#[rustfmt::skip]
pub const HELP: [(&str, &str, &str); 24] = [
    ("OUTRIDER_WEBHOOK_LISTEN", "[::]:15443", "where the API server finds it, TLS 1.3"),
    ("OUTRIDER_WEBHOOK_METRICS_PORT", "15190", "port of /metrics and /healthz"),
    ("OUTRIDER_WEBHOOK_NAMES", DEFAULT_NAME, "names that the API server calls it by"),
    ("OUTRIDER_WEBHOOK_CERT", "none", "certificate chain, PEM, read again when it changes; else it makes its own"),
    ("OUTRIDER_WEBHOOK_KEY", "none", "its key, PEM"),
    ("OUTRIDER_WEBHOOK_BUNDLE", "none", "file into which the authorities of its own certificates are written, PEM"),
    ("OUTRIDER_WEBHOOK_CLIENT_CA", "none", "who signs the API server's certificate; none: anybody may ask"),
    ("OUTRIDER_WEBHOOK_NAMESPACES", "none", "file of namespaces, as `kubectl get namespaces -o json` writes it"),
    ("OUTRIDER_WEBHOOK_KUBE", "off", "API server, for namespaces, versions, caBundle, events: off, in-cluster, or a kubeconfig"),
    ("OUTRIDER_WEBHOOK_CONFIGURATION", DEFAULT_CONFIGURATION, "name of the two webhook configurations whose caBundle it keeps"),
    ("OUTRIDER_WEBHOOK_INIT_IMAGE", "required", "image of outrider-init"),
    ("OUTRIDER_WEBHOOK_PROXY_IMAGE", "required", "image of outrider-proxy"),
    ("OUTRIDER_WEBHOOK_PULL_POLICY", "IfNotPresent", "Always, IfNotPresent or Never"),
    ("OUTRIDER_WEBHOOK_OWN_NAMESPACE", "outrider", "the namespace it runs in, which is left alone"),
    ("OUTRIDER_WEBHOOK_IGNORED_NAMESPACES", DEFAULT_IGNORED, "others that are left alone whatever they say"),
    ("OUTRIDER_WEBHOOK_UNLABELLED", "opt-in", "what holds for a namespace without the label outrider.dev/injection"),
    ("OUTRIDER_WEBHOOK_KUBERNETES", "asked for", "version of the API server, like 1.33"),
    ("OUTRIDER_WEBHOOK_OLDEST_NODE", "asked for", "version of the oldest kubelet"),
    ("OUTRIDER_WEBHOOK_POLICY", "none", "annotations that hold whatever namespace and pod say: guard=all;mode=protect"),
    ("OUTRIDER_WEBHOOK_DEFAULTS", "none", "annotations that hold where nobody says anything: logLevel=warn"),
    ("OUTRIDER_WEBHOOK_EXEMPT", "none", "what pods may do though it gets around the proxy: net-raw,privileged"),
    ("OUTRIDER_PODS_DIR", names::PODS_DIR, "root of the mailboxes on a node"),
    ("OUTRIDER_WEBHOOK_CSI_DRIVER", DEFAULT_DRIVER, "who makes a mailbox where mailbox=csi"),
    ("OUTRIDER_WEBHOOK_LOG", "info", "log filter: info, debug, outrider_agent_bridge=debug,info"),
];

impl Settings {
    /// Reads the settings through `lookup`, which gives a variable's text if it is set.
    ///
    /// # Errors
    /// Every variable whose text cannot be used, in one error.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut env = Reader::new(lookup);
        let listen = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
        let listen = env.value("OUTRIDER_WEBHOOK_LISTEN", listen);
        let metrics_port = env.value("OUTRIDER_WEBHOOK_METRICS_PORT", names::BRIDGE_HEALTH_PORT);
        let names = listed(&mut env, "OUTRIDER_WEBHOOK_NAMES", DEFAULT_NAME);
        let cert = env.optional_path("OUTRIDER_WEBHOOK_CERT");
        let key = env.optional_path("OUTRIDER_WEBHOOK_KEY");
        if cert.is_some() != key.is_some() {
            env.mistake("OUTRIDER_WEBHOOK_CERT and _KEY: both, or none".to_owned());
        }
        let namespaces = env.optional_path("OUTRIDER_WEBHOOK_NAMESPACES");
        let kube = env.value("OUTRIDER_WEBHOOK_KUBE", MaybeSource(None)).0;
        if kube.is_some() && namespaces.is_some() {
            env.mistake("OUTRIDER_WEBHOOK_KUBE and _NAMESPACES: one of them".to_owned());
        }
        let configuration = Name(DEFAULT_CONFIGURATION.to_owned());
        let settings = Self {
            listen,
            metrics_port,
            given: cert.zip(key).map(|(cert, key)| Given { cert, key }),
            names,
            bundle: env.optional_path("OUTRIDER_WEBHOOK_BUNDLE"),
            client_ca: env.optional_path("OUTRIDER_WEBHOOK_CLIENT_CA"),
            namespaces: namespaces.map_or(Namespaces::None, Namespaces::File),
            kube,
            configuration: env.value("OUTRIDER_WEBHOOK_CONFIGURATION", configuration).0,
            cluster: cluster(&mut env),
            log: env.value("OUTRIDER_WEBHOOK_LOG", "info".to_owned()),
        };
        env.done(settings)
    }
}

fn cluster<F: Fn(&str) -> Option<String>>(env: &mut Reader<F>) -> Cluster {
    let mut image = |key: &str| {
        let image: Option<Image> = env.option(key);
        if image.is_none() {
            env.mistake(format!("{key}: must name an image"));
        }
        image.map(|Image(name)| name).unwrap_or_default()
    };
    let init = image("OUTRIDER_WEBHOOK_INIT_IMAGE");
    let proxy = image("OUTRIDER_WEBHOOK_PROXY_IMAGE");
    let pull = env.value("OUTRIDER_WEBHOOK_PULL_POLICY", Pull("IfNotPresent"));
    let own = env.value("OUTRIDER_WEBHOOK_OWN_NAMESPACE", "outrider".to_owned());
    let mut ignored = listed(env, "OUTRIDER_WEBHOOK_IGNORED_NAMESPACES", DEFAULT_IGNORED);
    ignored.push(own);
    Cluster {
        ignored,
        unlabelled: env.value("OUTRIDER_WEBHOOK_UNLABELLED", Injection::OptIn),
        images: Images { init, proxy, pull: pull.0.to_owned() },
        kubernetes: env.option::<Version>("OUTRIDER_WEBHOOK_KUBERNETES"),
        oldest_node: env.option::<Version>("OUTRIDER_WEBHOOK_OLDEST_NODE"),
        policy: env.value("OUTRIDER_WEBHOOK_POLICY", Values::default()).0,
        defaults: env.value("OUTRIDER_WEBHOOK_DEFAULTS", Values::default()).0,
        exempt: env.value("OUTRIDER_WEBHOOK_EXEMPT", Exempt(Vec::new())).0,
        pods_dir: env
            .path("OUTRIDER_PODS_DIR", names::PODS_DIR)
            .display()
            .to_string(),
        csi_driver: env.value("OUTRIDER_WEBHOOK_CSI_DRIVER", DEFAULT_DRIVER.to_owned()),
    }
}

fn listed<F: Fn(&str) -> Option<String>>(
    env: &mut Reader<F>,
    key: &str,
    default: &str,
) -> Vec<String> {
    let said: Vec<Name> = env.list(key);
    if said.is_empty() {
        return default.split(',').map(str::to_owned).collect();
    }
    said.into_iter().map(|Name(name)| name).collect()
}

/// Names among `set` that look like settings of the webhook and are none: misspelt, most likely.
pub fn unknown(set: impl Iterator<Item = String>) -> Vec<String> {
    let known = |name: &str| HELP.iter().any(|(key, ..)| *key == name);
    set.filter(|name| name.starts_with("OUTRIDER_WEBHOOK_") && !known(name))
        .collect()
}

const DEFAULT_CONFIGURATION: &str = "outrider";
const DEFAULT_NAME: &str = "outrider-webhook.outrider.svc";
const DEFAULT_IGNORED: &str = "kube-system,kube-public,kube-node-lease";
const DEFAULT_DRIVER: &str = "mailbox.outrider.dev";
/// Longest reference to an image.
const MAX_IMAGE: usize = 512;
const PORT: u16 = 15443;

/// A reference to an image.
struct Image(String);

impl FromStr for Image {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_IMAGE).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err("must be a reference to an image") }
    }
}

/// A name as DNS has it.
struct Name(String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let fits = (1..=253).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_owned())) } else { Err("must be a name of a-z, 0-9, . and -") }
    }
}

/// When images are pulled.
struct Pull(&'static str);

impl FromStr for Pull {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ["Always", "IfNotPresent", "Never"]
            .into_iter()
            .find(|word| *word == text)
            .map(Self)
            .ok_or("must be Always, IfNotPresent or Never")
    }
}

/// What gets around the proxy and is allowed all the same.
struct Exempt(Vec<Exemption>);

impl FromStr for Exempt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Exemption::list(text).map(Self)
    }
}

/// Values of annotations: `key=value;key=value`.
#[derive(Default)]
struct Values(BTreeMap<String, String>);

impl FromStr for Values {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for part in text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').ok_or("must be key=value;key=value")?;
            let key = Key::named(name.trim())
                .filter(|key| key.scope != Scope::NamespaceOnly)
                .ok_or_else(|| format!("{name}: no such setting"))?;
            let value = value.trim();
            if value.len() > MAX_VALUE || !key.allows(value) {
                return Err(format!("{name}={value}: allowed is {}", key.form));
            }
            values.insert(key.name.to_owned(), value.to_owned());
        }
        Ok(Self(values))
    }
}

/// What `--help` says of keys.
pub(crate) fn keys() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    crate::inject::keys::KEYS.iter().map(|key| {
        let who: &dyn Display = match key.scope {
            Scope::Pod => &"pod",
            _ => &"namespace",
        };
        (key.name, key.default, format!("{} ({}; {who})", key.help, key.form))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let images = [
            ("OUTRIDER_WEBHOOK_INIT_IMAGE", "init:1"),
            ("OUTRIDER_WEBHOOK_PROXY_IMAGE", "proxy:1"),
        ];
        Settings::read(|key| {
            let found = pairs.iter().chain(&images).find(|(name, _)| *name == key);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn images_are_all_that_must_be_said() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.listen.port(), 15443);
        let ignored = ["kube-system", "kube-public", "kube-node-lease", "outrider"];
        assert_eq!(settings.cluster.ignored, ignored);
        let error = Settings::read(|_| None).unwrap_err();
        assert_eq!(error.0.len(), 2, "{error}");
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let error = read(&[
            ("OUTRIDER_WEBHOOK_LISTEN", "15443"),
            ("OUTRIDER_WEBHOOK_NAMES", "Webhook_1"),
            ("OUTRIDER_WEBHOOK_CERT", "/tls.crt"),
            ("OUTRIDER_WEBHOOK_NAMESPACES", "relative"),
            ("OUTRIDER_WEBHOOK_PROXY_IMAGE", "two words"),
            ("OUTRIDER_WEBHOOK_PULL_POLICY", "Sometimes"),
            ("OUTRIDER_WEBHOOK_UNLABELLED", "yes"),
            ("OUTRIDER_WEBHOOK_KUBERNETES", "new"),
            ("OUTRIDER_WEBHOOK_POLICY", "guard=none"),
            ("OUTRIDER_WEBHOOK_DEFAULTS", "exempt=privileged"),
            ("OUTRIDER_WEBHOOK_EXEMPT", "everything"),
        ])
        .unwrap_err();
        assert!(error.0.len() >= 11, "{error}");
        assert!(error.to_string().contains("allowed is off, tcp or all"), "{error}");
    }

    #[test]
    fn the_help_names_every_setting_that_is_read() {
        let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
        drop(Settings::read(|key| {
            asked.borrow_mut().insert(key.to_owned());
            None
        }));
        assert!(
            asked.into_inner().iter().eq(HELP
                .iter()
                .map(|(key, ..)| *key)
                .collect::<std::collections::BTreeSet<_>>())
        );
        let set = ["OUTRIDER_WEBHOOK_LOG", "OUTRIDER_WEBHOOK_LGO"];
        assert_eq!(unknown(set.into_iter().map(Into::into)), ["OUTRIDER_WEBHOOK_LGO"]);
    }

    #[test]
    fn policy_is_a_list_of_keys_with_values() {
        let settings = read(&[("OUTRIDER_WEBHOOK_POLICY", "guard=all; mode=protect;")]).unwrap();
        assert_eq!(settings.cluster.policy.len(), 2);
        assert_eq!(settings.cluster.policy["mode"], "protect");
    }
}
