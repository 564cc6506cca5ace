//! A cluster without nodes: objects alone, and controllers as processes.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use outrider_agent_bridge::{cluster::objects, controller::CA_KEY};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::{ApiServer, free_port};

/// Where the controllers run.
pub(crate) const OWN: &str = "outrider";
/// Two cores under load are slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The API server with what a chart would have installed.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
    kubeconfig: PathBuf,
}

/// A controller's process. It ends with it.
pub(crate) struct Replica {
    pub(crate) child: Child,
    pub(crate) port: u16,
    metrics: u16,
}

impl Replica {
    /// As if its machine had lost power.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// What it says of itself.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics))
            .await
            .ok()?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    pub(crate) async fn status(&self) -> Value {
        let text = self.get("/status").await.unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

impl World {
    /// `None` where there is no API server to be had.
    pub(crate) async fn new() -> Option<Self> {
        let server = ApiServer::start().await?;
        let (client, kubeconfig) = (server.client().await, server.kubeconfig());
        let world = Self { server, client, kubeconfig };
        for name in [OWN, "shop"] {
            let namespace = json!({"metadata": {"name": name}});
            world
                .create::<Namespace>(Api::all(world.client.clone()), namespace)
                .await;
        }
        for account in ["outrider-bridge", "other"] {
            let account = json!({"metadata": {"name": account}});
            world.create::<ServiceAccount>(world.of(OWN), account).await;
        }
        let definitions = Api::<CustomResourceDefinition>::all(world.client.clone());
        for definition in objects::definitions() {
            definitions
                .create(&PostParams::default(), &definition)
                .await
                .unwrap();
        }
        Some(world)
    }

    pub(crate) fn of<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn create<K>(&self, api: Api<K>, object: Value) -> K
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let object = serde_json::from_value(object).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match api.create(&PostParams::default(), &object).await {
                Ok(created) => return created,
                // A kind that was defined a moment ago.
                Err(kube::Error::Api(status)) if status.code == 404 && Instant::now() < until => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A pod that runs, with a proxy.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, node: &str, ip: &str) -> Pod {
        let app = name.split('-').next().unwrap();
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": app, "uid": "0", "controller": true,
            }]},
            "spec": {
                "nodeName": node,
                "initContainers": [{"name": "outrider-proxy", "image": "x", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "x"}],
            },
        });
        let pods = self.of::<Pod>(namespace);
        self.create(pods.clone(), pod).await;
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        let parameters = PatchParams::default();
        pods.patch_status(name, &parameters, &Patch::Merge(status))
            .await
            .unwrap()
    }

    /// A bridge's pod on a node, and its token.
    pub(crate) async fn token(&self, account: &str, node: &str) -> String {
        let name = format!("{account}-{node}");
        let pod = json!({
            "metadata": {"name": name},
            "spec": {"nodeName": node, "hostNetwork": true, "serviceAccountName": account,
                "containers": [{"name": "bridge", "image": "x"}]},
        });
        let pod = self.create::<Pod>(self.of(OWN), pod).await;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec!["outrider-controller".into()],
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name),
                    uid: pod.uid(),
                }),
                expiration_seconds: Some(3_600),
            },
            ..TokenRequest::default()
        };
        let accounts = self.of::<ServiceAccount>(OWN);
        let made = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await;
        made.unwrap().status.unwrap().token
    }

    /// Starts a controller.
    pub(crate) fn replica(&self, identity: &str) -> Replica {
        let (port, metrics) = (free_port(), free_port());
        let child = Command::new(env!("CARGO_BIN_EXE_outrider-agent-bridge"))
            .arg("controller")
            .env("OUTRIDER_CONTROLLER_KUBE", &self.kubeconfig)
            .env("OUTRIDER_CONTROLLER_LISTEN", format!("127.0.0.1:{port}"))
            .env("OUTRIDER_CONTROLLER_METRICS_PORT", metrics.to_string())
            .env("OUTRIDER_CONTROLLER_IDENTITY", identity)
            .env("OUTRIDER_CONTROLLER_NAMES", "controller.test")
            .env("OUTRIDER_CONTROLLER_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Replica { child, port, metrics }
    }

    /// The authorities that bridges are given, once there are so many.
    pub(crate) async fn authorities(&self, count: usize) -> String {
        let maps = self.of::<ConfigMap>(OWN);
        eventually("the authorities", async || {
            let map = maps.get_opt("outrider-controller-ca").await.ok()??;
            let text = map.data?.remove(CA_KEY)?;
            (text.matches("BEGIN").count() >= count).then_some(text)
        })
        .await
    }
}

/// Waits until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "waited for {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
