//! What the other containers of a pod may not do, since it gets around the proxy, and the rights that
//! they lose.

use serde_json::{Value, json};

use outrider_model::names;

use super::{
    Cluster, INIT, MAILBOX, Namespace, PROXY,
    patch::Patch,
    pod::{Container, List, Pod, items, text},
    probes,
};

/// Something that gets around the proxy and is allowed all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exemption {
    /// Packet sockets, marks, forged packets.
    NetRaw,
    /// Changing the rules.
    NetAdmin,
    /// Nearly everything.
    SysAdmin,
    /// Reading the memory of other processes.
    SysPtrace,
    /// Everything.
    Privileged,
    /// Seeing the proxy's process.
    SharedProcesses,
    /// Seeing every process of the node.
    HostProcesses,
    /// Mounting the mailboxes' place on the node.
    HostPath,
    /// Gaining rights by programs that have them: `allowPrivilegeEscalation` stays unset.
    Escalation,
}

/// What one may say.
pub(super) const EXEMPTIONS: &str = "a list of net-raw, net-admin, sys-admin, sys-ptrace, privileged, \
                                     shared-processes, host-processes, host-path, escalation";

impl Exemption {
    const ALL: [(&'static str, Self); 9] = [
        ("net-raw", Self::NetRaw),
        ("net-admin", Self::NetAdmin),
        ("sys-admin", Self::SysAdmin),
        ("sys-ptrace", Self::SysPtrace),
        ("privileged", Self::Privileged),
        ("shared-processes", Self::SharedProcesses),
        ("host-processes", Self::HostProcesses),
        ("host-path", Self::HostPath),
        ("escalation", Self::Escalation),
    ];

    /// Reads a list with commas; an empty text has none.
    ///
    /// # Errors
    /// What is allowed.
    pub fn list(text: &str) -> Result<Vec<Self>, &'static str> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        words
            .map(|word| {
                let found = Self::ALL.iter().find(|(name, _)| *name == word);
                found.map(|(_, exemption)| *exemption).ok_or(EXEMPTIONS)
            })
            .collect()
    }
}

/// Whether a text is a list of them.
pub(super) fn are_exemptions(text: &str) -> bool {
    text.len() <= super::MAX_VALUE && Exemption::list(text).is_ok()
}

/// Capabilities that get around the proxy, and what exempts from that.
const CAPABILITIES: [(&str, Exemption); 4] = [
    ("NET_RAW", Exemption::NetRaw),
    ("NET_ADMIN", Exemption::NetAdmin),
    ("SYS_ADMIN", Exemption::SysAdmin),
    ("SYS_PTRACE", Exemption::SysPtrace),
];

/// Why a pod may not start beside the proxy.
pub(super) fn refused(
    pod: &Pod<'_>,
    exempt: &[Exemption],
    namespace: &Namespace,
    cluster: &Cluster,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let allowed = |exemption| exempt.contains(&exemption);
    let spec = pod.spec();
    identity(&spec["securityContext"], "securityContext", &mut reasons);
    if spec["hostPID"].as_bool() == Some(true) && !allowed(Exemption::HostProcesses) {
        reasons.push("hostPID: shows the proxy's process; exemption host-processes".to_owned());
    }
    if spec["shareProcessNamespace"].as_bool() == Some(true) && !allowed(Exemption::SharedProcesses)
    {
        reasons.push(
            "shareProcessNamespace: shows the proxy's process; exemption shared-processes"
                .to_owned(),
        );
    }
    if !allowed(Exemption::HostPath) {
        reasons.extend(
            pod.volumes()
                .iter()
                .filter_map(|volume| on_node(volume, cluster)),
        );
    }
    reasons.extend(range(namespace));
    for list in List::ALL {
        for container in pod.containers(list) {
            if container.has_our_name() {
                reasons.extend(reserved(&container, cluster));
            } else {
                container_refused(&container, exempt, &mut reasons);
            }
        }
    }
    reasons
}

/// Why a running pod may not become this.
pub(super) fn refused_change(
    now: &Pod<'_>,
    before: &Pod<'_>,
    exempt: &[Exemption],
    cluster: &Cluster,
) -> Vec<String> {
    let mut reasons = Vec::new();
    for container in now.neighbours(List::Ephemeral) {
        container_refused(&container, exempt, &mut reasons);
    }
    for list in List::ALL {
        for container in now.containers(list).filter(Container::has_our_name) {
            let same = |other: &Container<'_>| other.name() == container.name();
            let was = before.containers(list).find(same);
            let was = was.and_then(|was| text(was.value, "image"));
            if was != text(container.value, "image") {
                reasons.extend(reserved(&container, cluster));
            }
        }
    }
    reasons
}

/// Takes NET_RAW and the gaining of rights from containers that nobody exempted.
pub(super) fn harden(pod: &Pod<'_>, list: List, exempt: &[Exemption], patch: &mut Patch) {
    for container in pod.neighbours(list) {
        harden_container(&container, exempt, patch);
    }
}

/// The same for ephemeral containers that were not there before; others cannot be changed.
pub(super) fn harden_new(now: &Pod<'_>, before: &Pod<'_>, exempt: &[Exemption], patch: &mut Patch) {
    let old = before.containers(List::Ephemeral).count();
    for container in now.neighbours(List::Ephemeral) {
        if container.index >= old {
            harden_container(&container, exempt, patch);
        }
    }
}

fn harden_container(container: &Container<'_>, exempt: &[Exemption], patch: &mut Patch) {
    let context = &container.value["securityContext"];
    let added: Vec<_> = capabilities(context, "add").collect();
    let privileged = context["privileged"].as_bool() == Some(true);
    let dropped =
        items_text(&context["capabilities"], "drop").any(|name| matches!(name, "ALL" | "NET_RAW"));
    let drop = !privileged && !dropped && !exempt.contains(&Exemption::NetRaw);
    // The API server refuses the two together.
    let gains = privileged
        || added
            .iter()
            .any(|name| matches!(&**name, "SYS_ADMIN" | "ALL"));
    let unset = context["allowPrivilegeEscalation"].is_null();
    let keep = unset && !gains && !exempt.contains(&Exemption::Escalation);
    if !context.is_object() {
        let mut made = serde_json::Map::new();
        if keep {
            made.insert("allowPrivilegeEscalation".into(), false.into());
        }
        if drop {
            made.insert("capabilities".into(), json!({ "drop": ["NET_RAW"] }));
        }
        if !made.is_empty() {
            patch.add(format!("{}/securityContext", container.path()), made.into());
        }
        return;
    }
    let path = format!("{}/securityContext", container.path());
    if keep {
        patch.add(format!("{path}/allowPrivilegeEscalation"), false.into());
    }
    if drop {
        let held = &context["capabilities"];
        let path = format!("{path}/capabilities");
        if held["drop"].is_array() {
            patch.add(format!("{path}/drop/-"), "NET_RAW".into());
        } else {
            patch.add_member(held, &path, "drop", json!(["NET_RAW"]));
        }
    }
}

fn container_refused(container: &Container<'_>, exempt: &[Exemption], reasons: &mut Vec<String>) {
    let name = container.shown();
    let context = &container.value["securityContext"];
    let allowed = |exemption| exempt.contains(&exemption);
    identity(context, &format!("{name}: securityContext"), reasons);
    if context["privileged"].as_bool() == Some(true) && !allowed(Exemption::Privileged) {
        reasons.push(format!("{name}: privileged; exemption privileged"));
    }
    for added in capabilities(context, "add") {
        for (capability, exemption) in CAPABILITIES {
            if (added == capability || added == "ALL") && !allowed(exemption) {
                let word = capability.to_ascii_lowercase().replace('_', "-");
                reasons.push(format!("{name}: capability {added}; exemption {word}"));
            }
        }
    }
    if items(container.value, "volumeMounts")
        .iter()
        .chain(items(container.value, "volumeDevices"))
        .any(|mount| text(mount, "name") == Some(MAILBOX))
    {
        reasons.push(format!("{name}: mounts {MAILBOX}, which is the proxy's"));
    }
    if matches!(text(container.value, "targetContainerName"), Some(INIT | PROXY)) {
        reasons.push(format!("{name}: targetContainerName is the proxy's"));
    }
    for port in items(container.value, "ports") {
        if container
            .port(&port["containerPort"])
            .is_some_and(is_own_port)
        {
            reasons.push(format!("{name}: port {} is the proxy's", port["containerPort"]));
        }
    }
    reasons.extend(probes::refused(container));
}

/// The proxy's uid and gid are what its connections are known by.
fn identity(context: &Value, at: &str, reasons: &mut Vec<String>) {
    let ours = Some(u64::from(names::PROXY_UID));
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if context[field].as_u64() == ours {
            reasons.push(format!("{at}.{field}: {} is the proxy's", names::PROXY_UID));
        }
    }
    let groups = context["supplementalGroups"].as_array();
    if groups.is_some_and(|groups| groups.iter().any(|group| group.as_u64() == ours)) {
        reasons.push(format!("{at}.supplementalGroups: {} is the proxy's", names::PROXY_UID));
    }
}

/// OpenShift gives the first uid of the namespace's range to containers that name none.
fn range(namespace: &Namespace) -> Option<String> {
    ["openshift.io/sa.scc.uid-range", "openshift.io/sa.scc.supplemental-groups"]
        .into_iter()
        .find_map(|key| {
            let first = namespace.annotations.get(key)?.split(['/', '-']).next()?;
            let is_ours = first.trim().parse() == Ok(names::PROXY_UID);
            is_ours.then(|| {
                let name = &namespace.name;
                format!("namespace {name}: {key} begins with {first}, which is the proxy's")
            })
        })
}

/// A volume of the node through which the mailboxes can be reached.
fn on_node(volume: &Value, cluster: &Cluster) -> Option<String> {
    let name = text(volume, "name").unwrap_or_default();
    if name == MAILBOX {
        return None;
    }
    let path = parts(text(&volume["hostPath"], "path")?);
    let mut mailboxes = parts(&cluster.pods_dir);
    if mailboxes.len() > 1 {
        // The sockets of the bridge lie beside them.
        mailboxes.pop();
    }
    // What holds them, lies among them, or climbs about.
    let reaches = |place: &[&str]| path.iter().zip(place).all(|(one, other)| one == other);
    let kubelet = ["var", "lib", "kubelet"];
    if !reaches(&mailboxes) && !reaches(&kubelet) && !path.contains(&"..") {
        return None;
    }
    let name: String = name.chars().take(63).collect();
    Some(format!("volume {name}: hostPath reaches the mailboxes; exemption host-path"))
}

/// The parts of a path, `/var/run` taken for `/run` as on every distribution.
fn parts(path: &str) -> Vec<&str> {
    let mut parts: Vec<_> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.starts_with(&["var", "run"]) {
        parts.remove(0);
    }
    parts
}

/// A container with our name that is not of our making. One of ours is made anew, whatever is in it.
fn reserved(container: &Container<'_>, cluster: &Cluster) -> Option<String> {
    let image = text(container.value, "image");
    let ours = match container.name() {
        INIT => &cluster.images.init,
        _ => &cluster.images.proxy,
    };
    let is_ours = image == Some(ours) && container.list != List::Ephemeral;
    (!is_ours).then(|| {
        format!(
            "{}: the name is kept for the injected container, of image {ours}",
            container.shown()
        )
    })
}

/// Capabilities as the kernel knows them: runtimes take them in any case, with and without prefix.
fn capabilities<'a>(context: &'a Value, list: &'a str) -> impl Iterator<Item = String> + 'a {
    items_text(&context["capabilities"], list).map(|name| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_")
            .map_or(name.clone(), str::to_owned)
    })
}

fn items_text<'a>(holder: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    let list = holder[field].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str)
}

/// Whether the proxy listens there.
pub(super) fn is_own_port(port: u16) -> bool {
    names::OWN_PORTS.contains(&port)
}
