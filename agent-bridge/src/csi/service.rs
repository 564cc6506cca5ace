//! What the kubelet asks.

use std::{path::PathBuf, sync::Arc};

use outrider_api::kubelet::{
    csi::{
        GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest,
        GetPluginInfoResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
        NodeGetInfoRequest, NodeGetInfoResponse, NodePublishVolumeRequest,
        NodePublishVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
        ProbeRequest, ProbeResponse, identity_server::Identity, node_server::Node,
    },
    registration::{
        InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
        registration_server::Registration,
    },
};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use super::{
    CsiSettings,
    place::{PlaceError, Places},
};

/// Where the kubelet says which pod asks.
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
/// Where it says that the volume lives as long as the pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// Versions of the interface.
const VERSION: &str = "1.0.0";

/// The driver.
#[derive(Clone, Debug)]
pub(super) struct Driver(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    settings: CsiSettings,
    socket: PathBuf,
    places: Places,
}

type Answer<T> = Result<Response<T>, Status>;

impl Driver {
    pub(super) fn new(settings: CsiSettings, socket: PathBuf, places: Places) -> Self {
        Self(Arc::new(Parts { settings, socket, places }))
    }

    /// Does something to mounts, apart from what must not wait.
    async fn change(
        &self,
        change: impl FnOnce(&Places) -> Result<(), PlaceError> + Send + 'static,
    ) -> Result<(), Status> {
        let parts = Arc::clone(&self.0);
        let done = spawn_blocking(move || change(&parts.places)).await;
        let done = done.map_err(|error| Status::internal(error.to_string()))?;
        done.map_err(|error| {
            tracing::warn!(%error, "a CSI volume was refused");
            match error {
                PlaceError::Elsewhere(_) => Status::invalid_argument(error.to_string()),
                PlaceError::Taken(_) => Status::failed_precondition(error.to_string()),
                _ => Status::internal(error.to_string()),
            }
        })
    }
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Answer<GetPluginInfoResponse> {
        let name = self.0.settings.driver.clone();
        let vendor_version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetPluginInfoResponse { name, vendor_version }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl Node for Driver {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let asked = request.into_inner();
        let said = |key: &str| asked.volume_context.get(key).map(String::as_str);
        if asked.volume_id.is_empty() || asked.readonly || said(EPHEMERAL) != Some("true") {
            let why = "a mailbox is an inline ephemeral volume that is written to";
            return Err(Status::invalid_argument(why));
        }
        let why = "the kubelet must say which pod it is: podInfoOnMount of the CSIDriver";
        let uid = said(POD_UID)
            .ok_or_else(|| Status::invalid_argument(why))?
            .to_owned();
        let target = asked.target_path;
        self.change(move |places| places.publish(&uid, &target))
            .await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let target = request.into_inner().target_path;
        self.change(move |places| places.unpublish(&target)).await?;
        Ok(Response::new(Default::default()))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let node_id = self.0.settings.node.clone();
        Ok(Response::new(NodeGetInfoResponse { node_id }))
    }
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: self.0.settings.driver.clone(),
            endpoint: self.0.socket.display().to_string(),
            supported_versions: vec![VERSION.into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            tracing::info!("the kubelet knows the CSI driver");
        } else {
            tracing::error!(error, "the kubelet does not take the CSI driver");
        }
        Ok(Response::new(Default::default()))
    }
}
