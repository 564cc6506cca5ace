//! What a bridge has to do with a cluster, if it is in one.

use std::{path::PathBuf, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::BridgeError;
use crate::{
    csi::Sockets,
    link::{self, LinkSettings},
    node::Node,
    pods::{self, KubeSettings},
    settings::Settings,
};

/// All of it, not started yet.
#[derive(Debug)]
pub(super) struct Joined {
    pods: PathBuf,
    kube: Option<KubeSettings>,
    csi: Option<Sockets>,
    link: Option<Box<LinkSettings>>,
}

impl Joined {
    /// Binds the sockets that the kubelet asks on.
    pub(super) fn open(settings: &Settings) -> Result<Self, BridgeError> {
        let csi = settings.csi.clone().map(Sockets::bind).transpose();
        let csi = csi.map_err(|source| BridgeError::Listen {
            setting: "OUTRIDER_BRIDGE_CSI",
            address: "a socket of the kubelet's".into(),
            source,
        })?;
        Ok(Self {
            pods: settings.pods.clone(),
            kube: settings.kube.clone(),
            csi,
            link: settings.link.clone(),
        })
    }

    /// Starts all of it; pods are those that the API server names, if it is asked.
    pub(super) fn start(
        self,
        node: &Arc<Node>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Option<pods::Shared> {
        if let Some(csi) = self.csi {
            csi.serve(self.pods, tasks, stop);
        }
        link::start(self.link, node, tasks, stop);
        let watch = pods::Watch::new(self.kube?, Arc::clone(node));
        let shared = watch.subscribe();
        tasks.spawn(watch.run(stop.child_token()));
        Some(shared)
    }
}
