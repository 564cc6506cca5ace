//! What steps share: the cluster, and what they do to it and ask it again and again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::helm::Helm;
use crate::kubectl::{Kubectl, until};
use crate::manifests::{Images, OUTSIDE, SERVICE_PORT, STAGE};

/// How injection puts the proxy into pods of this cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sidecar {
    /// An init container that goes on (Kubernetes 1.29 and later).
    Native,
    /// A container beside the workload's.
    Classic,
}

/// Another revision of Outrider.
pub(crate) struct Previous {
    /// Its chart.
    pub(crate) chart: String,
    /// Tag of its images.
    pub(crate) tag: String,
}

/// The cluster and how Outrider gets into it.
pub(crate) struct Stage {
    /// The cluster.
    pub(crate) kubectl: Kubectl,
    /// Where images come from.
    pub(crate) images: Images,
    /// Tag of a release to upgrade to.
    pub(crate) next_tag: Option<String>,
    /// Another revision, to come from and to go back to.
    pub(crate) previous: Option<Previous>,
    /// Helm.
    pub(crate) helm: Helm,
    /// Values for the chart, besides images.
    pub(crate) values: Value,
    /// The kubelet's directory.
    pub(crate) kubelet: Option<String>,
    /// What is expected of injection here.
    pub(crate) sidecar: Sidecar,
}

/// Requests that a client has made so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Requests {
    /// Answered.
    pub(crate) answered: u64,
    /// Not.
    pub(crate) failed: u64,
}

impl Stage {
    /// Whether the release has a controller, so that policy follows from objects.
    pub(crate) fn controlled(&self) -> bool {
        self.values["controller"]["enabled"] != false
    }

    /// Applies a workload and waits until all its pods of this version are ready.
    pub(crate) fn deploy(&self, object: &Value) -> Result<()> {
        self.kubectl.apply(object)?;
        let name = object["metadata"]["name"].as_str().context("no name")?;
        self.rolled_out(STAGE, &format!("deployment/{name}"))
    }

    /// Waits until a workload's pods are all new and ready.
    pub(crate) fn rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        let wait = ["rollout", "status", what, "--namespace", namespace, "--timeout=180s"];
        self.kubectl.run(&wait)?;
        Ok(())
    }

    /// Restarts a workload's pods and waits until new ones are ready.
    pub(crate) fn restart(&self, app: &str) -> Result<()> {
        let what = format!("deployment/{app}");
        self.kubectl
            .run(&["rollout", "restart", &what, "--namespace", STAGE])?;
        self.rolled_out(STAGE, &what)
    }

    /// Applies a pod and waits until it is ready.
    pub(crate) fn start(&self, pod: &Value) -> Result<()> {
        self.kubectl.apply(pod)?;
        let name = |member: &str| {
            let text = pod["metadata"][member].as_str();
            text.context("no name").map(str::to_owned)
        };
        let (namespace, pod) = (name("namespace")?, format!("pod/{}", name("name")?));
        let wait = ["wait", "--for=condition=Ready", &pod, "--timeout=180s"];
        self.kubectl
            .run(&[&wait[..], &["--namespace", &namespace]].concat())?;
        Ok(())
    }

    /// A page of a Service.
    pub(crate) fn url(&self, service: &str) -> Result<String> {
        let service = self
            .kubectl
            .json(&["get", "service", service, "--namespace", STAGE])?;
        let address = service["spec"]["clusterIP"]
            .as_str()
            .context("no address")?;
        Ok(format!("http://{address}:{SERVICE_PORT}/"))
    }

    /// Asks for a page from within a pod.
    pub(crate) fn visit(&self, namespace: &str, pod: &str, url: &str) -> Result<String> {
        let visit = ["timeout", "5", "wget", "-q", "-O", "-", url];
        self.kubectl.exec(namespace, pod, "workload", &visit)
    }

    /// Runs a script on the node.
    pub(crate) fn on_node(&self, script: &str) -> Result<String> {
        self.kubectl
            .exec(OUTSIDE, "node", "workload", &["sh", "-c", script])
    }

    /// What the clients, which ask all the time, have counted.
    pub(crate) fn requests(&self) -> Result<Requests> {
        let text =
            self.kubectl
                .exec(STAGE, "deployment/client", "workload", &["cat", "/tmp/count"])?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || Ok::<_, anyhow::Error>(numbers.next().context("no count")??);
        Ok(Requests { answered: next()?, failed: next()? })
    }

    /// Waits until clients have been answered so many times more since `before`, and none of the requests failed.
    pub(crate) fn all_answered(&self, before: Requests, more: u64) -> Result<()> {
        let now = until("answers", || {
            let now = self.requests()?;
            let enough = now.answered >= before.answered + more || now.failed > before.failed;
            ensure!(enough, "{before:?}, then {now:?}");
            Ok(now)
        })?;
        ensure!(now.failed == before.failed, "{before:?}, then {now:?}");
        Ok(())
    }

    /// Pods of a workload of ours, in the order of their names.
    pub(crate) fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let label = format!("app={app}");
        let pods =
            self.kubectl
                .json(&["get", "pods", "--namespace", STAGE, "--selector", &label])?;
        Ok(pods["items"].as_array().context("no pods")?.clone())
    }
}

/// How long something took, for people.
pub(crate) fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// The value below which that part of the sorted times lies.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short list"
    )]
    let index = ((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}
