//! What becomes of a pod when it is created: skipped for a reason, refused with what would be
//! allowed, or patched. Pure: a pod as JSON, its namespace and the cluster's settings in, a decision out.
//!
//! ```text
//!  asked ── not asked: Skip
//!    └► pod ── too large, malformed: Refuse
//!         └► settings ── a value that cannot be used: Refuse
//!              └► neighbours ── what could get around the proxy: Refuse
//!                   └► probes, containers, volumes, annotations ─► Patch
//! ```
//!
//! Nothing that is in the pod already is believed: what is ours is computed anew and compared. So a second
//! pass changes nothing, and validation is the same computation whose patch must be empty.

mod asked;
mod cluster;
mod containers;
pub mod keys;
mod lists;
mod neighbours;
mod patch;
mod pod;
mod probes;
mod settings;
mod values;

use std::fmt::{self, Display};

use serde_json::Value;

pub use cluster::{Cluster, Images, Injection, MAX_ENTRIES, Namespace, Version};
pub use neighbours::Exemption;
pub use patch::{Op, Operation};
pub use pod::{MAX_CONTAINERS, MAX_PORTS, MAX_VOLUMES};
pub use probes::MAX_PROBES;
pub use settings::MAX_VALUE;

use self::{
    containers::Made,
    patch::Patch,
    pod::{List, Pod},
    settings::Settings,
};

/// Prefix of every label and annotation of ours.
pub const PREFIX: &str = "outrider.dev/";
/// Annotation that says what was injected. Written for people, never read.
pub const STATUS: &str = "outrider.dev/status";
/// The container that installs the redirect rules.
pub const INIT: &str = "outrider-init";
/// The container that stands in the traffic.
pub const PROXY: &str = "outrider-proxy";
/// The volume of the two ctrl sockets.
pub const MAILBOX: &str = "outrider-mailbox";

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is none of ours and starts as it is.
    Skip(Skip),
    /// It must not start; why, a line a reason.
    Refuse(Vec<String>),
    /// It is ours, after these changes; none if it is as it should be.
    Inject(Injected),
}

/// Changes to a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// In the order in which they apply.
    pub patch: Vec<Operation>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// How the proxy runs in it.
    pub sidecar: Sidecar,
}

/// How the proxy's container runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sidecar {
    /// An init container that goes on (`restartPolicy: Always`): starts before everything, ends after.
    Native,
    /// An ordinary container, the first, which holds the others back until it is ready.
    Classic,
}

impl Display for Sidecar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Classic => "classic",
        })
    }
}

/// Why a pod is none of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Skip {
    /// The cluster leaves its namespace alone.
    IgnoredNamespace,
    /// Its namespace says `disabled`.
    NamespaceDisabled,
    /// Neither namespace nor pod asked for it.
    NotAsked,
    /// The pod asked to be left out, and may.
    OptedOut,
    /// It has the node's network: there is nothing to capture that is its own.
    HostNetwork,
    /// It runs on Windows.
    Windows,
    /// It stands for a pod that the kubelet runs from a file.
    Mirror,
}

impl Skip {
    /// Every one, in order.
    pub const ALL: [Self; 7] = [
        Self::IgnoredNamespace,
        Self::NamespaceDisabled,
        Self::NotAsked,
        Self::OptedOut,
        Self::HostNetwork,
        Self::Windows,
        Self::Mirror,
    ];

    /// The closed label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::IgnoredNamespace => "ignored-namespace",
            Self::NamespaceDisabled => "namespace-disabled",
            Self::NotAsked => "not-asked",
            Self::OptedOut => "opted-out",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
            Self::Mirror => "mirror-pod",
        }
    }

    /// Whether the pod was asked for and goes without all the same, which somebody should know.
    #[must_use]
    pub fn is_uncovered(self) -> bool {
        matches!(self, Self::HostNetwork | Self::Windows)
    }
}

/// Decides about a pod that is to be created.
#[must_use]
pub fn inject(pod: &Value, namespace: &Namespace, cluster: &Cluster) -> Decision {
    let mut warnings = Vec::new();
    match asked::asked(pod, namespace, cluster, &mut warnings) {
        Err(asked::No::Skip(why)) => return Decision::Skip(why),
        Err(asked::No::Refuse(why)) => return Decision::Refuse(vec![why]),
        Ok(()) => {}
    }
    match patched(pod, namespace, cluster, &mut warnings) {
        Ok((patch, sidecar)) => Decision::Inject(Injected { patch, warnings, sidecar }),
        Err(mut reasons) => {
            reasons.truncate(MAX_REASONS);
            Decision::Refuse(reasons)
        }
    }
}

/// Decides about a pod as it is after everybody has changed it: what injection would still change
/// is somebody else's doing.
///
/// # Errors
/// Why it must not start.
pub fn validate(pod: &Value, namespace: &Namespace, cluster: &Cluster) -> Result<(), Vec<String>> {
    match inject(pod, namespace, cluster) {
        Decision::Skip(_) => Ok(()),
        Decision::Refuse(reasons) => Err(reasons),
        Decision::Inject(injected) if injected.patch.is_empty() => Ok(()),
        Decision::Inject(injected) => Err(vec![not_as_made(&injected.patch)]),
    }
}

/// What is said of a pod that somebody has changed after injection.
#[must_use]
pub fn not_as_made(patch: &[Operation]) -> String {
    let paths: Vec<_> = patch
        .iter()
        .map(|operation| operation.path.as_str())
        .take(MAX_REASONS)
        .collect();
    format!("not as injection makes it, at {}", paths.join(", "))
}

/// Decides about a change of a pod that is there: containers for looking into it, and images.
///
/// # Errors
/// Why it must not be changed so.
pub fn change(
    pod: &Value,
    before: &Value,
    namespace: &Namespace,
    cluster: &Cluster,
) -> Result<Vec<Operation>, Vec<String>> {
    let is_asked = asked::asked(before, namespace, cluster, &mut Vec::new()).is_ok();
    let (now, before) = (Pod::read(pod)?, Pod::read(before)?);
    // Labels change while the pod runs; what stands in its traffic does not.
    let is_injected = List::ALL.into_iter().any(|list| {
        before
            .containers(list)
            .any(|container| container.has_our_name())
    });
    if !is_asked && !is_injected {
        return Ok(Vec::new());
    }
    let exempt = settings::exemptions(namespace, cluster)?;
    let mut reasons = neighbours::refused_change(&now, &before, &exempt, cluster);
    if !reasons.is_empty() {
        reasons.truncate(MAX_REASONS);
        return Err(reasons);
    }
    let mut patch = Patch::default();
    neighbours::harden_new(&now, &before, &exempt, &mut patch);
    Ok(patch.done())
}

fn patched(
    pod: &Value,
    namespace: &Namespace,
    cluster: &Cluster,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Operation>, Sidecar), Vec<String>> {
    let pod = Pod::read(pod)?;
    let exempt = settings::exemptions(namespace, cluster)?;
    let settings = Settings::resolve(&pod, namespace, cluster, warnings)?;
    let reasons = neighbours::refused(&pod, &exempt, namespace, cluster);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let mut patch = Patch::default();
    for list in [List::Containers, List::Init] {
        neighbours::harden(&pod, list, &exempt, &mut patch);
    }
    let asked = probes::rewrite(&pod, &settings, &mut patch, warnings)?;
    let sidecar = settings.sidecar(cluster)?;
    let made = Made::new(&settings, cluster, sidecar, &asked);
    warnings.extend(made.warnings(&pod, &settings));
    lists::place(&pod, &made, &mut patch);
    lists::annotate(&pod, &made, &settings, &mut patch)?;
    Ok((patch.done(), sidecar))
}

/// Reasons that a refusal tells; the rest comes when these are mended.
const MAX_REASONS: usize = 16;
