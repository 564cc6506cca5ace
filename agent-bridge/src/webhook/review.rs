//! AdmissionReview v1: what the API server asks, and what it is told.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::refusals::Refusal;
use crate::{
    inject::{self, Cluster, Decision, Namespace, Operation, Skip},
    node::threats::base64,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// Changes: `/inject`.
    Inject,
    /// Yes or no, after everybody's changes: `/validate`.
    Validate,
}

/// The question, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What the API server is about to do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    uid: String,
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    operation: String,
    /// Nothing will come of it, and nobody is to be told.
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Debug, Default, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// How it was decided, as the counters have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// With changes.
    Inject,
    /// As it should be.
    Unchanged,
    /// None of ours.
    Skip(Skip),
    /// May not be.
    Refuse,
    /// Not about pods.
    Other,
}

impl Outcome {
    /// Decision and reason, both of closed sets.
    pub(super) fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Inject => ["inject", ""],
            Self::Unchanged => ["unchanged", ""],
            Self::Skip(why) => ["skip", why.label()],
            Self::Refuse => ["refuse", ""],
            Self::Other => ["skip", "not-a-pod"],
        }
    }
}

/// An answer, written.
#[derive(Debug)]
pub(super) struct Answered {
    /// How it was decided.
    pub(super) outcome: Outcome,
    /// The review with the response.
    pub(super) text: Vec<u8>,
    /// What others should know of it.
    pub(super) refusal: Option<Refusal>,
}

/// What the API server is told.
#[derive(Debug)]
struct Answer {
    outcome: Outcome,
    reasons: Vec<String>,
    patch: Vec<Operation>,
    warnings: Vec<String>,
}

/// Reads the question.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(body: &[u8]) -> Result<Request, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("not a review: {error}"))?;
    if (&*review.api_version, &*review.kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let is: String = review.api_version.chars().take(MAX_SHOWN).collect();
        return Err(format!("not an AdmissionReview of admission.k8s.io/v1, but of {is:?}"));
    }
    let request = review.request.ok_or("a review without a request")?;
    if request.uid.is_empty() || request.uid.len() > MAX_UID {
        return Err(format!("request.uid: must have 1 to {MAX_UID} characters"));
    }
    Ok(request)
}

/// Decides, and writes the answer.
pub(super) fn answer(
    call: Call,
    request: &Request,
    namespace: &Namespace,
    cluster: &Cluster,
) -> Answered {
    let answer = decide(call, request, namespace, cluster);
    let tells = answer.outcome == Outcome::Refuse && request.dry_run != Some(true);
    let refusal = tells.then(|| Refusal::new(&request.namespace, &request.object, &answer.reasons));
    if !matches!(answer.outcome, Outcome::Unchanged | Outcome::Other) {
        let name = pod_name(request);
        tracing::info!(
            namespace = %request.namespace, pod = %name, decision = answer.outcome.labels()[0],
            reason = answer.outcome.labels()[1], reasons = ?answer.reasons, warnings = ?answer.warnings,
            "pod"
        );
    }
    let mut response = json!({ "uid": request.uid, "allowed": answer.outcome != Outcome::Refuse });
    if answer.outcome == Outcome::Refuse {
        let message = format!("outrider: {}", answer.reasons.join("; "));
        response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": message });
    }
    if !answer.patch.is_empty() {
        let patch = serde_json::to_vec(&answer.patch).unwrap_or_default();
        response["patchType"] = "JSONPatch".into();
        response["patch"] = base64(&patch).into();
    }
    let warnings: Vec<String> = answer
        .warnings
        .iter()
        .take(MAX_WARNINGS)
        .map(|text| {
            format!("outrider: {text}")
                .chars()
                .take(MAX_WARNING)
                .collect()
        })
        .collect();
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
    let [decision, reason] = answer.outcome.labels();
    let audit: BTreeMap<_, _> = [("decision", decision), ("reason", reason)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    response["auditAnnotations"] = json!(audit);
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    Answered { outcome: answer.outcome, text: review.to_string().into_bytes(), refusal }
}

fn decide(call: Call, request: &Request, namespace: &Namespace, cluster: &Cluster) -> Answer {
    let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
    match &*request.operation {
        "CREATE" if is_pod => creation(call, request, namespace, cluster),
        "UPDATE" if is_pod => {
            match inject::change(&request.object, &request.old_object, namespace, cluster) {
                Err(reasons) => Answer::of(Outcome::Refuse, reasons),
                Ok(patch) => changed(call, patch, Vec::new()),
            }
        }
        _ => Answer::of(Outcome::Other, Vec::new()),
    }
}

fn creation(call: Call, request: &Request, namespace: &Namespace, cluster: &Cluster) -> Answer {
    match inject::inject(&request.object, namespace, cluster) {
        Decision::Refuse(reasons) => Answer::of(Outcome::Refuse, reasons),
        Decision::Inject(injected) => changed(call, injected.patch, injected.warnings),
        Decision::Skip(why) => {
            let mut answer = Answer::of(Outcome::Skip(why), Vec::new());
            if why.is_uncovered() {
                answer
                    .warnings
                    .push(format!("not covered: {}", why.label()));
            }
            answer
        }
    }
}

/// Changes are made when they are asked for; where only yes or no is asked, they are somebody else's doing.
fn changed(call: Call, patch: Vec<Operation>, warnings: Vec<String>) -> Answer {
    match call {
        _ if patch.is_empty() => Answer::of(Outcome::Unchanged, Vec::new()),
        Call::Inject => Answer { outcome: Outcome::Inject, reasons: Vec::new(), patch, warnings },
        Call::Validate => Answer::of(Outcome::Refuse, vec![inject::not_as_made(&patch)]),
    }
}

impl Answer {
    fn of(outcome: Outcome, reasons: Vec<String>) -> Self {
        Self { outcome, reasons, patch: Vec::new(), warnings: Vec::new() }
    }
}

/// A pod that a controller makes has no name yet when it is asked about.
fn pod_name(request: &Request) -> String {
    let metadata = &request.object["metadata"];
    let generated = metadata["generateName"].as_str();
    let name = Some(&*request.name).filter(|name| !name.is_empty());
    let name = name.or(metadata["name"].as_str()).or(generated);
    name.unwrap_or_default().chars().take(MAX_NAME).collect()
}

/// Longest uid of a request.
const MAX_UID: usize = 128;
/// Longest name of a pod.
const MAX_NAME: usize = 253;
/// Warnings of one answer, and characters of one: what clients show.
const MAX_WARNINGS: usize = 8;
const MAX_WARNING: usize = 256;
/// Characters of a wrong text that are repeated in a message.
const MAX_SHOWN: usize = 64;
