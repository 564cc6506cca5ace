//! Whether all of Outrider in a cluster works.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Cluster, coverage};
use crate::{
    client::{Failure, encode},
    show::{Output, Row},
    table::Column,
};

/// What one look found.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    state: State,
    what: &'static str,
    said: String,
}

/// How it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// It works, and somebody should know.
    Warning,
    /// It does not.
    Wrong,
}

impl Row for Found {
    const NOTHING: &'static str = "nothing was looked at";
    const COLUMNS: &'static [Column] =
        &[Column::Left(""), Column::Left("WHAT"), Column::Left("FOUND")];

    fn cells(&self, _now: u64) -> Vec<String> {
        let sign = match self.state {
            State::Good => "ok",
            State::Warning => "warning",
            State::Wrong => "WRONG",
        };
        vec![sign.to_owned(), self.what.to_owned(), self.said.clone()]
    }
}

pub(super) fn good(what: &'static str, said: impl Into<String>) -> Found {
    Found { state: State::Good, what, said: said.into() }
}

pub(super) fn warning(what: &'static str, said: impl Into<String>) -> Found {
    Found { state: State::Warning, what, said: said.into() }
}

pub(super) fn wrong(what: &'static str, said: impl Into<String>) -> Found {
    Found { state: State::Wrong, what, said: said.into() }
}

/// Prints what was found; a failure if something is wrong.
pub(super) fn print(found: &[Found], output: &mut Output) -> Result<(), Failure> {
    output.list(found)?;
    match found
        .iter()
        .filter(|found| found.state == State::Wrong)
        .count()
    {
        0 => Ok(()),
        1 => Err(Failure::Refused("one thing is wrong".to_owned())),
        many => Err(Failure::Refused(format!("{many} things are wrong"))),
    }
}

/// Looks at all.
pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    let mut found = parts(cluster).await?;
    found.push(definitions(cluster).await?);
    found.extend(bundles(cluster).await?);
    found.push(answers(cluster).await?);
    found.extend(certificates(cluster).await?);
    found.extend(bridges(cluster).await?);
    found.extend(covered(cluster).await?);
    Ok(found)
}

/// Whether the components run.
pub(super) async fn parts(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    let namespace = encode(&cluster.namespace);
    let mut found = Vec::new();
    for (what, plural, name, fields) in [
        ("webhook", "deployments", "outrider-webhook", ["readyReplicas", "replicas"]),
        ("controller", "deployments", "outrider-controller", ["readyReplicas", "replicas"]),
        ("bridges", "daemonsets", "outrider-bridge", ["numberReady", "desiredNumberScheduled"]),
    ] {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/{plural}/{name}");
        let Some(object) = cluster.kubectl.find(&path).await? else {
            found.push(wrong(what, format!("there is no {name} in {}", cluster.namespace)));
            continue;
        };
        let [ready, all] = fields.map(|field| object["status"][field].as_u64().unwrap_or(0));
        let said = format!("{ready} of {all} ready");
        found.push(match ready {
            0 => wrong(what, said),
            _ if ready < all => warning(what, said),
            _ => good(what, said),
        });
    }
    Ok(found)
}

/// Our custom resources.
const DEFINITIONS: [&str; 7] = [
    "workloadgroups",
    "clusterworkloadgroups",
    "networkrules",
    "clusternetworkrules",
    "workloadmodes",
    "clusterworkloadmodes",
    "learnedpolicies",
];

async fn definitions(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "custom resources";
    let mut missing = Vec::new();
    for plural in DEFINITIONS {
        let path = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.outrider.dev"
        );
        let established = cluster.kubectl.find(&path).await?.is_some_and(|object| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Established" && one["status"] == "True")
            })
        });
        if !established {
            missing.push(plural);
        }
    }
    Ok(match missing.as_slice() {
        [] => good(WHAT, format!("all {} established", DEFINITIONS.len())),
        some => wrong(WHAT, format!("not there or not established: {}", some.join(", "))),
    })
}

/// The two webhook configurations.
pub(super) const REGISTRATIONS: [&str; 2] =
    ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];

/// Whether the API server knows whom to believe.
async fn bundles(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for (what, plural) in ["registration (mutating)", "registration (validating)"]
        .into_iter()
        .zip(REGISTRATIONS)
    {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}/outrider");
        let Some(object) = cluster.kubectl.find(&path).await? else {
            found.push(wrong(what, "it is not there: nobody asks the webhook"));
            continue;
        };
        let entries = object["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
        let without: Vec<_> = entries
            .iter()
            .filter(|entry| {
                entry["clientConfig"]["caBundle"]
                    .as_str()
                    .is_none_or(str::is_empty)
            })
            .filter_map(|entry| entry["name"].as_str())
            .collect();
        found.push(match without.as_slice() {
            [] => good(what, format!("{} entries, each with a caBundle", entries.len())),
            some => wrong(
                what,
                format!("without a caBundle: {}; the webhook's log says why", some.join(", ")),
            ),
        });
    }
    Ok(found)
}

/// Whether a pod that asks for it is injected, tried in dry run: all the way by the API server to the webhook and back.
async fn answers(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "injection";
    let (namespace, _) = coverage::namespaces(&cluster.kubectl)
        .await?
        .into_iter()
        .next()
        .unwrap_or(("default".to_owned(), false));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "outrider-check-", "namespace": namespace,
            "labels": { "outrider.dev/inject": "true" } },
        "spec": { "containers": [{ "name": "app", "image": "outrider.dev/nothing" }] },
    });
    let made = cluster
        .kubectl
        .put(&["create", "--dry-run=server"], &pod)
        .await;
    Ok(match made {
        Ok(pod) if coverage::proxy(&pod).is_some() => {
            good(WHAT, format!("a pod of {namespace} would get its proxy"))
        }
        Ok(_) => wrong(
            WHAT,
            format!(
                "a pod of {namespace} would go without: the webhook does not answer, or is not asked"
            ),
        ),
        Err(Failure::Forbidden(said)) if !said.contains("outrider") => {
            warning(WHAT, format!("not tried: {said}"))
        }
        Err(failure) => wrong(WHAT, failure.to_string()),
    })
}

/// Days before its end from which a certificate is warned about, as the webhook does.
const SOON: i64 = 30;

/// What the webhook's replicas say of their certificates and of what they wait for.
async fn certificates(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    const WHAT: &str = "certificate";
    let mut found = Vec::new();
    for pod in cluster.pods("webhook").await? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let metrics = match cluster.metrics(name).await {
            Ok(text) => text,
            Err(failure) => {
                found.push(warning(WHAT, format!("{name}: not seen: {failure}")));
                continue;
            }
        };
        let value = value(&metrics, "outrider_webhook_certificate_expiry_seconds");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        found.push(match value.map(|until| days(until, now)) {
            None => warning(WHAT, format!("{name}: says nothing of it")),
            Some(left) if left < 0 => wrong(WHAT, format!("{name}: expired {} days ago", -left)),
            Some(left) if left < SOON => warning(WHAT, format!("{name}: ends in {left} days")),
            Some(left) => good(WHAT, format!("{name}: for {left} days")),
        });
    }
    Ok(found)
}

#[expect(clippy::cast_possible_truncation, reason = "a number of days")]
fn days(until: f64, now: u64) -> i64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch")]
    let left = until - now as f64;
    (left / 86_400.0).floor() as i64
}

/// A metric's value.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

/// What bridges say of themselves.
async fn bridges(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    const WHAT: &str = "bridge";
    let (mut found, mut fine) = (Vec::new(), 0_usize);
    for pod in cluster.pods("bridge").await? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, node) = (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        match cluster.health(&name).await {
            Ok(said) if said.trim() == "ok" || said.trim() == "ready" => fine += 1,
            Ok(said) => found.push(warning(WHAT, format!("{node}: {}", said.trim()))),
            Err(failure) => found.push(wrong(WHAT, format!("{node}: {failure}"))),
        }
    }
    if fine > 0 {
        found.push(good(WHAT, format!("{fine} are ready")));
    }
    Ok(found)
}

/// Whether pods that should have one have a proxy, and of which version.
async fn covered(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    let uncovered = coverage::find(&cluster.kubectl).await?;
    let mut found = vec![match uncovered.len() {
        0 => good("coverage", "every pod of a namespace that asks for it has its proxy"),
        many => warning("coverage", format!("{many} pods without a proxy; `coverage` lists them")),
    }];
    let namespace = encode(&cluster.namespace);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/outrider-webhook");
    let Some(webhook) = cluster.kubectl.find(&path).await? else { return Ok(found) };
    let env = &webhook["spec"]["template"]["spec"]["containers"][0]["env"];
    let image = env.as_array().and_then(|all| {
        all.iter()
            .find(|one| one["name"] == "OUTRIDER_WEBHOOK_PROXY_IMAGE")
    });
    let Some(image) = image.and_then(|one| one["value"].as_str()) else { return Ok(found) };
    let (mut same, mut other) = (0_usize, 0_usize);
    for (namespace, _) in coverage::namespaces(&cluster.kubectl).await? {
        let path = format!("/api/v1/namespaces/{}/pods", encode(&namespace));
        for pod in cluster.kubectl.list(&path).await? {
            match coverage::proxy(&pod) {
                Some(proxy) if proxy["image"] == image => same += 1,
                Some(_) => other += 1,
                None => {}
            }
        }
    }
    found.push(match other {
        0 => good("proxies", format!("{same}, all of {image}")),
        _ => warning(
            "proxies",
            format!("{other} of {} are not of {image}: restart what makes them", same + other),
        ),
    });
    Ok(found)
}

impl Cluster {
    /// Metrics of one of our pods, by the API server's proxy.
    async fn metrics(&self, pod: &str) -> Result<String, Failure> {
        self.kubectl.raw(&self.of_pod(pod, "metrics")).await
    }

    /// What one of our pods says of its readiness.
    async fn health(&self, pod: &str) -> Result<String, Failure> {
        self.kubectl.raw(&self.of_pod(pod, "healthz/ready")).await
    }

    fn of_pod(&self, pod: &str, path: &str) -> String {
        let namespace = encode(&self.namespace);
        format!("/api/v1/namespaces/{namespace}/pods/{}:15190/proxy/{path}", encode(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP a_seconds x\na_seconds_total 7\na_seconds 1.7e9\n";
        assert_eq!(value(text, "a_seconds"), Some(1.7e9));
        assert_eq!(value(text, "b"), None);
        assert_eq!(days(86_400.0 * 3.5, 0), 3);
        assert_eq!(days(0.0, 86_400), -1);
    }
}
