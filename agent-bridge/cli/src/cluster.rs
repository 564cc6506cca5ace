//! A whole cluster, as kubectl reaches it: objects by the API server, bridges by tunnels into their pods.

mod before;
mod check;
mod coverage;
mod kubectl;
mod mode;
mod policy;

use std::sync::Arc;

use outrider_api::Conversation;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

pub(crate) use self::kubectl::{Kubectl, Tunnel};
use crate::{
    args::Args,
    client::{Failure, encode},
    show::Output,
};

/// Tunnels that are open at a time: each is a process.
const AT_ONCE: usize = 4;
/// Bridges that are asked by one command; more must be chosen from by `--node`.
const MAX_BRIDGES: usize = 256;

/// A cluster with Outrider in it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    kubectl: Kubectl,
    /// Where Outrider is.
    namespace: String,
    /// The only node that is wanted.
    node: Option<String>,
    token: Option<String>,
}

/// A bridge's pod.
#[derive(Clone, Debug)]
struct Bridge {
    pod: String,
    node: String,
}

impl Cluster {
    pub(crate) fn new(args: &Args, token: Option<String>) -> Self {
        Self {
            kubectl: Kubectl::new(args.context.clone()),
            namespace: args.release_namespace.clone(),
            node: args.node.clone(),
            token,
        }
    }

    /// Elements of every bridge's list.
    pub(crate) async fn list<T>(&self, path: &str, limit: Option<u32>) -> Result<Vec<T>, Failure>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut asked = JoinSet::new();
        for bridge in self.bridges().await? {
            let (cluster, path, places) = (self.clone(), path.to_owned(), Arc::clone(&places));
            asked.spawn(async move {
                let _place = places.acquire().await;
                let answer = async {
                    let tunnel = cluster.tunnel(&bridge).await?;
                    tunnel.client.list::<T>(&path, limit).await
                };
                (bridge.node.clone(), answer.await)
            });
        }
        let (mut all, mut failed, mut good) = (Vec::new(), Vec::new(), 0);
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((_, Ok(list))) => {
                    good += 1;
                    all.extend(list);
                }
                Ok((node, Err(failure))) => failed.push((node, failure)),
                Err(panicked) => return Err(Failure::Refused(panicked.to_string())),
            }
        }
        if good == 0
            && let Some((_, failure)) = failed.pop()
        {
            return Err(failure);
        }
        for (node, failure) in failed {
            note(&format!("node {node} is not in this: {failure}"));
        }
        Ok(all)
    }

    /// Conversations of the cluster. Both ends' nodes see one that goes between them; the one with more of it counts.
    pub(crate) async fn conversations(
        &self,
        path: &str,
        limit: Option<u32>,
    ) -> Result<Vec<Conversation>, Failure> {
        let mut all = self.list::<Conversation>(path, limit).await?;
        let key = |one: &Conversation| {
            (one.client.clone(), one.server.clone(), one.app.clone(), one.proto.clone(), one.port)
        };
        all.sort_by(|one, other| {
            key(one)
                .cmp(&key(other))
                .then(other.sessions.cmp(&one.sessions))
        });
        all.dedup_by(|later, first| key(later) == key(first));
        Ok(all)
    }

    /// The bridge of a workload's node, or the only one.
    pub(crate) async fn of(&self, workload: Option<&str>) -> Result<Tunnel, Failure> {
        let node = match (&self.node, workload) {
            (Some(node), _) => Some(node.clone()),
            (None, Some(workload)) => self.node_of(workload).await?,
            (None, None) => None,
        };
        let cluster = Self { node, ..self.clone() };
        let bridges = cluster.bridges().await?;
        match bridges.as_slice() {
            [one] => self.tunnel(one).await,
            more => Err(Failure::Usage(format!(
                "{} nodes may be meant; name one with --node: {}",
                more.len(),
                more.iter()
                    .take(8)
                    .map(|bridge| &*bridge.node)
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// The node of a pod: `<namespace>/<name>`, a name, or an address.
    async fn node_of(&self, workload: &str) -> Result<Option<String>, Failure> {
        let node = |pod: &Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
        if let Some((namespace, name)) = workload.split_once('/') {
            let path = format!("/api/v1/namespaces/{}/pods/{}", encode(namespace), encode(name));
            return Ok(self.kubectl.find(&path).await?.as_ref().and_then(node));
        }
        let field = match workload.parse::<std::net::IpAddr>() {
            Ok(_) => "status.podIP",
            Err(_) => "metadata.name",
        };
        let selector = encode(&format!("{field}={workload}"));
        let pods = self
            .kubectl
            .list(&format!("/api/v1/pods?fieldSelector={selector}"))
            .await?;
        Ok(match pods.as_slice() {
            [one] => node(one),
            _ => None,
        })
    }

    async fn tunnel(&self, bridge: &Bridge) -> Result<Tunnel, Failure> {
        self.kubectl
            .tunnel(&self.namespace, &bridge.pod, self.token.clone())
            .await
    }

    /// Bridges that are wanted and run.
    async fn bridges(&self) -> Result<Vec<Bridge>, Failure> {
        let pods = self.pods("bridge").await?;
        let mut bridges: Vec<_> = pods
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running")
            .filter_map(|pod| {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let pod_name = text(&pod["metadata"]["name"])?;
                Some(Bridge { pod: pod_name, node: text(&pod["spec"]["nodeName"])? })
            })
            .filter(|bridge| self.node.as_ref().is_none_or(|node| *node == bridge.node))
            .collect();
        bridges.sort_by(|one, other| one.node.cmp(&other.node));
        if bridges.is_empty() {
            let place = self
                .node
                .as_ref()
                .map_or(String::new(), |node| format!(" on node {node}"));
            return Err(Failure::Refused(format!(
                "no bridge runs{place} in namespace {}; `--release-namespace` names another, `check` says more",
                self.namespace
            )));
        }
        if bridges.len() > MAX_BRIDGES {
            return Err(Failure::Usage(format!(
                "{} bridges are more than are asked at once: choose with --node",
                bridges.len()
            )));
        }
        Ok(bridges)
    }

    /// Pods of a component of ours.
    async fn pods(&self, component: &str) -> Result<Vec<Value>, Failure> {
        let labels =
            format!("app.kubernetes.io/name=outrider,app.kubernetes.io/component={component}");
        let namespace = encode(&self.namespace);
        let selector = encode(&labels);
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}");
        self.kubectl.list(&path).await
    }

    /// What is wrong with the cluster before or after the installation.
    pub(crate) async fn check(&self, output: &mut Output, before: bool) -> Result<(), Failure> {
        let found = if before { before::run(self).await? } else { check::run(self).await? };
        check::print(&found, output)
    }

    /// Pods that should have a proxy and have none.
    pub(crate) async fn coverage(&self, output: &mut Output) -> Result<(), Failure> {
        output.list(&coverage::find(&self.kubectl).await?)
    }

    /// The cluster at a glance.
    pub(crate) async fn status(&self, output: &mut Output) -> Result<(), Failure> {
        let found = check::parts(self).await?;
        check::print(&found, output)?;
        let uncovered = coverage::find(&self.kubectl).await?;
        if uncovered.is_empty() { Ok(()) } else { output.list(&uncovered) }
    }

    /// Modes as objects say them.
    pub(crate) async fn mode(&self, output: &mut Output, workload: &str) -> Result<(), Failure> {
        output.list(&mode::find(self, workload).await?)
    }

    /// Writes a WorkloadMode.
    pub(crate) async fn set_mode(
        &self,
        output: &mut Output,
        workload: &str,
        mode: outrider_model::Mode,
    ) -> Result<(), Failure> {
        let said = mode::set(self, workload, mode).await?;
        output.say(&said)
    }
}

/// Says something that is no part of the output.
fn note(text: &str) {
    use std::io::Write as _;
    // Whoever does not read it has closed it.
    drop(writeln!(std::io::stderr(), "outrider: {text}"));
}
