//! Mailboxes as inline ephemeral CSI volumes, which pods may have where hostPath is not allowed: the kubelet says
//! which pod asks, and what is mounted is that pod's mailbox and no other.
//!
//! Two sockets below the kubelet's directory: `plugins_registry/<driver>-reg.sock`, where the kubelet gets to know
//! us, and `plugins/<driver>/csi.sock`, where it asks for volumes.

mod authority;
mod place;
mod service;

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use outrider_api::kubelet::{
    csi::{identity_server::IdentityServer, node_server::NodeServer},
    registration::registration_server::RegistrationServer,
};
use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use crate::settings::Reader;
use authority::Named;
use place::Places;
use service::Driver;

/// Largest question; none has more in it than a path and what is said of a pod.
const MAX_QUESTION: usize = 64 << 10;
/// Only the kubelet, which is root, may ask.
const SOCKET_MODE: u32 = 0o600;
/// Longest path that fits a socket address.
const MAX_SOCKET_PATH: usize = 107;

/// The settings with their defaults.
pub(crate) const HELP: [(&str, &str, &str); 2] = [
    ("OUTRIDER_BRIDGE_CSI", "off", "the kubelet's directory: mailboxes are CSI volumes too"),
    ("OUTRIDER_BRIDGE_CSI_DRIVER", DRIVER, "name of the driver"),
];

/// The webhook's default is the same.
const DRIVER: &str = "mailbox.outrider.dev";
/// Longest name of a driver, by the specification.
const MAX_DRIVER: usize = 63;

/// Where the kubelet is, and what we are called there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CsiSettings {
    /// `OUTRIDER_BRIDGE_CSI`.
    pub(crate) kubelet: PathBuf,
    /// `OUTRIDER_BRIDGE_CSI_DRIVER`.
    pub(crate) driver: String,
    /// Our node.
    pub(crate) node: String,
}

impl CsiSettings {
    /// Reads them; `node` is the node's name, if it is known.
    pub(crate) fn read<F: Fn(&str) -> Option<String>>(
        env: &mut Reader<F>,
        node: Option<String>,
    ) -> Option<Self> {
        let kubelet = env.value("OUTRIDER_BRIDGE_CSI", "off".to_owned());
        let driver = env.value("OUTRIDER_BRIDGE_CSI_DRIVER", DRIVER.to_owned());
        if kubelet == "off" {
            return None;
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let fits = |text: &str| !text.is_empty() && text.len() <= MAX_DRIVER;
        if !fits(&driver) || !driver.bytes().all(is_name) || driver.starts_with('.') {
            env.mistake(format!("OUTRIDER_BRIDGE_CSI_DRIVER={driver:?}: is no name of a driver"));
        }
        if !Path::new(&kubelet).is_absolute() {
            env.mistake(format!(
                "OUTRIDER_BRIDGE_CSI={kubelet:?}: must be off or an absolute path"
            ));
        }
        if node.is_none() {
            env.mistake("OUTRIDER_BRIDGE_CSI needs OUTRIDER_BRIDGE_NODE".into());
        }
        Some(Self { kubelet: kubelet.into(), driver, node: node? })
    }

    fn socket(&self) -> PathBuf {
        self.kubelet
            .join("plugins")
            .join(&self.driver)
            .join("csi.sock")
    }

    fn registration(&self) -> PathBuf {
        self.kubelet
            .join("plugins_registry")
            .join(format!("{}-reg.sock", self.driver))
    }
}

/// Both sockets, bound.
#[derive(Debug)]
pub(crate) struct Sockets {
    settings: CsiSettings,
    volumes: UnixListener,
    registration: UnixListener,
}

impl Sockets {
    /// Binds them anew: what an earlier bridge left is removed.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn bind(settings: CsiSettings) -> io::Result<Self> {
        let volumes = bind(&settings.socket())?;
        let registration = bind(&settings.registration())?;
        Ok(Self { settings, volumes, registration })
    }

    /// Serves until `stop`. The kubelet then forgets us when the registration's socket goes.
    pub(crate) fn serve(self, pods: PathBuf, tasks: &TaskTracker, stop: &CancellationToken) {
        let Self { settings, volumes, registration } = self;
        let path = settings.registration();
        let places = Places::new(pods, settings.kubelet.clone());
        let driver = Driver::new(settings.clone(), settings.socket(), places);
        let identity = IdentityServer::new(driver.clone()).max_decoding_message_size(MAX_QUESTION);
        let node = NodeServer::new(driver.clone()).max_decoding_message_size(MAX_QUESTION);
        let known = RegistrationServer::new(driver).max_decoding_message_size(MAX_QUESTION);
        let volumes = Server::builder()
            .add_service(identity)
            .add_service(node)
            .serve_with_incoming_shutdown(incoming(volumes), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = volumes.await {
                tracing::error!(%error, "CSI volumes are no longer served");
            }
        });
        let stopped = stop.clone().cancelled_owned();
        let known = Server::builder().add_service(known);
        tasks.spawn(async move {
            let kubelet = incoming(registration);
            if let Err(error) = known.serve_with_incoming_shutdown(kubelet, stopped).await {
                tracing::error!(%error, "the kubelet cannot register the driver any more");
            }
            drop(std::fs::remove_file(path));
        });
    }
}

/// Connections with a name that HTTP/2 takes.
fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Named>> {
    UnixListenerStream::new(listener).map(|stream| stream.map(Named::new))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(named(io::Error::other("too long for a socket")));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(named)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(named)?;
    Ok(listener)
}
