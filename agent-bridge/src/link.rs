//! The bridge as a client of the cluster's controller: what the node saw goes up, what its workloads need comes down.
//!
//! What came down is kept in the store and stays in force while the controller is away; what is to go up waits, as
//! far as there is room.

mod authority;
mod dial;
pub(crate) mod kept;
mod read;
pub(crate) mod seen;
mod session;

use std::{path::PathBuf, str::FromStr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::authority::Place;
use crate::{cluster::client::Source, node::Node, settings::Reader};

/// Where the controller is, and what is needed to speak to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkSettings {
    /// `OUTRIDER_BRIDGE_CLUSTER`: `host:port`.
    pub(crate) target: String,
    /// `OUTRIDER_BRIDGE_CLUSTER_CA`: who signs its certificate, read at each connection.
    pub(crate) ca: Place,
    /// How the API server is reached, if the authority is there.
    pub(crate) kube: Option<Source>,
    /// `OUTRIDER_BRIDGE_CLUSTER_TOKEN`: our token, read at each connection.
    pub(crate) token: PathBuf,
    /// `OUTRIDER_BRIDGE_CLUSTER_NAME`: the name in its certificate.
    pub(crate) name: String,
    /// Our node.
    pub(crate) node: String,
}

/// The settings with their defaults.
pub(crate) const HELP: [(&str, &str, &str); 4] = [
    (
        "OUTRIDER_BRIDGE_CLUSTER",
        "off",
        "the cluster's controller, host:port; needs the node's name",
    ),
    (
        "OUTRIDER_BRIDGE_CLUSTER_CA",
        DEFAULT_CA,
        "who signs its certificate, PEM: a file, or configmap/<namespace>/<name>",
    ),
    ("OUTRIDER_BRIDGE_CLUSTER_TOKEN", DEFAULT_TOKEN, "file of our token for it"),
    ("OUTRIDER_BRIDGE_CLUSTER_NAME", "its host", "name in its certificate"),
];

const DEFAULT_CA: &str = "/etc/outrider/controller/ca.crt";
const DEFAULT_TOKEN: &str = "/var/run/secrets/outrider/token";
/// Where the controller listens, if the setting names no port.
const PORT: u16 = 18_402;

impl LinkSettings {
    /// Reads them; `node` is the node's name, if it is known, `kube` the way to the API server.
    pub(crate) fn read<F: Fn(&str) -> Option<String>>(
        env: &mut Reader<F>,
        node: Option<String>,
        kube: Option<Source>,
    ) -> Option<Self> {
        let target = env.value("OUTRIDER_BRIDGE_CLUSTER", Target(None)).0;
        let ca = env.value("OUTRIDER_BRIDGE_CLUSTER_CA", Place::File(DEFAULT_CA.into()));
        let token = env.path("OUTRIDER_BRIDGE_CLUSTER_TOKEN", DEFAULT_TOKEN);
        let name = env.option::<TlsName>("OUTRIDER_BRIDGE_CLUSTER_NAME");
        let (host, port) = target?;
        if node.is_none() {
            env.mistake("OUTRIDER_BRIDGE_CLUSTER needs OUTRIDER_BRIDGE_NODE".into());
        }
        if kube.is_none() && matches!(ca, Place::ConfigMap { .. }) {
            env.mistake("OUTRIDER_BRIDGE_CLUSTER_CA=configmap/… needs OUTRIDER_BRIDGE_KUBE".into());
        }
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = name.map_or(bare, |name| name.0);
        Some(Self { target: format!("{host}:{port}"), ca, kube, token, name, node: node? })
    }
}

/// `off`, or a host with or without a port.
struct Target(Option<(String, u16)>);

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()),
            _ => (text, Some(PORT)),
        };
        let port = port.ok_or("must be off or host:port")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match ServerName::try_from(bare) {
            Ok(_) => Ok(Self(Some((host.to_owned(), port)))),
            Err(_) => Err("must be off or host:port"),
        }
    }
}

struct TlsName(String);

impl FromStr for TlsName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err("is no name that a certificate could have"),
        }
    }
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// An update came over the connection that is.
    pub(crate) linked: bool,
    /// When anything was heard last, Unix seconds.
    pub(crate) heard_at: u64,
    /// Who is dialled.
    pub(crate) target: String,
    /// Why there is no link.
    pub(crate) failing: Option<String>,
    /// Links since the start.
    pub(crate) links: u64,
    /// Batches that were acknowledged.
    pub(crate) batches: u64,
}

/// Keeps the link until `stop`.
pub(crate) fn start(
    settings: Option<Box<LinkSettings>>,
    node: &Arc<Node>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let Some(settings) = settings else { return };
    let task = session::Task::new(*settings, Arc::clone(node));
    let stop = stop.child_token();
    tasks.spawn(async move {
        stop.run_until_cancelled(Box::pin(task.run())).await;
    });
}
