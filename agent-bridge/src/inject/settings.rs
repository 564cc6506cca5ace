//! The settings in force for one pod: cluster before namespace before pod, then the defaults. A value
//! that cannot be used refuses the pod: a slip of the pen must not leave it open.

use std::collections::BTreeMap;

use super::{
    Cluster, Exemption, Namespace, PREFIX, STATUS, Sidecar, Version, asked,
    keys::{KEYS, Key, Scope},
    pod::Pod,
    values,
};

/// Longest text of one value.
pub const MAX_VALUE: usize = 4096;

/// The value of every key.
#[derive(Debug)]
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// What holds for the pod.
    ///
    /// # Errors
    /// Every annotation that cannot be used, with what is allowed.
    pub(super) fn resolve(
        pod: &Pod<'_>,
        namespace: &Namespace,
        cluster: &Cluster,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Vec<String>> {
        let mut reasons = unknown(pod, namespace);
        let free = namespace
            .annotations
            .get(&format!("{PREFIX}podSettings"))
            .is_some_and(|said| said == "all");
        let mut settings = BTreeMap::new();
        for key in KEYS {
            let at = format!("{PREFIX}{}", key.name);
            let of_namespace = namespace.annotations.get(&at).map(String::as_str);
            let of_pod = pod.annotation(&at);
            let of_cluster = cluster.policy.get(key.name).map(String::as_str);
            let whose = format!("namespace {}: annotation {at}", namespace.name);
            reasons.extend(of_namespace.and_then(|said| mistake(key, &whose, said)));
            reasons.extend(of_pod.and_then(|said| mistake(key, &format!("annotation {at}"), said)));
            let may = match key.scope {
                Scope::Pod => true,
                Scope::Namespace => free,
                Scope::NamespaceOnly => false,
            };
            if of_pod.is_some() && !may {
                reasons.push(format!("annotation {at}: {}", who_may(key.scope)));
            }
            let above = of_cluster.or(of_namespace);
            if let (Some(above), Some(said)) = (above, of_pod)
                && above != said
            {
                let who = if of_cluster.is_some() { "cluster" } else { "namespace" };
                warnings.push(format!("annotation {at} has no effect: the {who} says {above:?}"));
            }
            let set = above
                .or(of_pod)
                .or(cluster.defaults.get(key.name).map(String::as_str));
            if let Some(value) = set.filter(|value| *value != key.default) {
                settings.insert(key.name, value.to_owned());
            }
        }
        let settings = Self(settings);
        if reasons.is_empty() {
            reasons.extend(settings.contradictions());
        }
        if reasons.is_empty() { Ok(settings) } else { Err(reasons) }
    }

    /// The value of a key of the table.
    pub(super) fn get(&self, name: &str) -> &str {
        let default = || Key::named(name).map_or("", |key| key.default);
        self.0.get(name).map_or_else(default, String::as_str)
    }

    /// The value, if it is not the default.
    pub(super) fn changed(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All that is not the default.
    pub(super) fn all_changed(&self) -> &BTreeMap<&'static str, String> {
        &self.0
    }

    /// How the proxy runs.
    ///
    /// # Errors
    /// When the pod insists on what the cluster does not have.
    pub(super) fn sidecar(&self, cluster: &Cluster) -> Result<Sidecar, Vec<String>> {
        let server = cluster.kubernetes;
        let is_old = |version: Option<Version>| version.is_some_and(|is| is < Version::NATIVE);
        let nodes = match cluster.oldest_node {
            Some(oldest) => oldest >= Version::NATIVE,
            None => server.is_some_and(Version::vouches_for_nodes),
        };
        match self.get("sidecar") {
            "native" if is_old(server) || is_old(cluster.oldest_node) => {
                let Version(major, minor) = Version::NATIVE;
                let why = format!("takes Kubernetes {major}.{minor} on API server and nodes");
                Err(vec![format!("{PREFIX}sidecar is \"native\": {why}; allowed is classic")])
            }
            "native" => Ok(Sidecar::Native),
            "auto" if !is_old(server) && nodes => Ok(Sidecar::Native),
            _ => Ok(Sidecar::Classic),
        }
    }

    /// Values that are fine one by one and not together.
    fn contradictions(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (request, limit) in [("proxyCPU", "proxyCPULimit"), ("proxyMemory", "proxyMemoryLimit")]
        {
            let of = |name| values::quantity(self.get(name));
            if let (Some(asked), Some(most)) = (of(request), of(limit))
                && asked > most
            {
                reasons.push(format!(
                    "{PREFIX}{request} is {:?}: allowed is up to {PREFIX}{limit}, which is {:?}",
                    self.get(request),
                    self.get(limit)
                ));
            }
        }
        reasons
    }
}

/// What pods of a namespace may do though it gets around the proxy.
///
/// # Errors
/// When the namespace's list cannot be read.
pub(super) fn exemptions(
    namespace: &Namespace,
    cluster: &Cluster,
) -> Result<Vec<Exemption>, Vec<String>> {
    let at = format!("{PREFIX}exempt");
    let mut exempt = cluster.exempt.clone();
    if let Some(said) = namespace.annotations.get(&at) {
        let read = Exemption::list(said);
        exempt.extend(read.map_err(|form| {
            vec![format!("namespace {}: annotation {at}: allowed is {form}", namespace.name)]
        })?);
    }
    Ok(exempt)
}

fn mistake(key: &Key, at: &str, said: &str) -> Option<String> {
    if said.len() <= MAX_VALUE && key.allows(said) {
        return None;
    }
    let said: String = said.chars().take(MAX_SHOWN).collect();
    Some(format!("{at} is {said:?}: allowed is {}", key.form))
}

/// Annotations that look like settings and are none: misspelt, most likely.
fn unknown(pod: &Pod<'_>, namespace: &Namespace) -> Vec<String> {
    let strange = |key: &&String| {
        let name = key.strip_prefix(PREFIX).unwrap_or_default();
        asked::is_ours(key) && *key != STATUS && Key::named(name).is_none()
    };
    let of_pod = pod.annotations().into_iter().flat_map(|map| map.keys());
    let in_pod = of_pod
        .filter(strange)
        .map(|key| format!("annotation {}: no such setting", shown(key)));
    let in_namespace = namespace.annotations.keys().filter(strange).map(|key| {
        format!("namespace {}: annotation {}: no such setting", namespace.name, shown(key))
    });
    let mut all: Vec<_> = in_pod.chain(in_namespace).collect();
    if let Some(last) = all.last_mut() {
        let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        last.push_str(&format!("; there are {}", names.join(", ")));
    }
    all
}

fn who_may(scope: Scope) -> &'static str {
    match scope {
        Scope::NamespaceOnly => "only the namespace may say it",
        _ => "only the namespace may say it, or a pod where the namespace says podSettings=all",
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// Characters of a wrong text that are repeated in a message.
const MAX_SHOWN: usize = 120;
