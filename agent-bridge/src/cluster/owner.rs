//! What a pod is a replica of.

use kube::core::ObjectMeta;

/// Name of what a pod is a replica of: a Deployment (through its ReplicaSet), StatefulSet, DaemonSet, Job, CronJob
/// (through the Job), whatever else owns it, or itself. Its learned group is `nv.<service>.<namespace>`.
#[must_use]
pub fn service(pod: &ObjectMeta) -> String {
    let own = pod.name.clone().unwrap_or_default();
    let mut owners = pod.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else { return own };
    let name = owner.name.as_str();
    let label = |key: &str| pod.labels.as_ref().and_then(|labels| labels.get(key));
    let found = match owner.kind.as_str() {
        "ReplicaSet" => label("pod-template-hash").and_then(|hash| without(name, hash)),
        "Job" => name
            .rsplit_once('-')
            .filter(|(_, at)| is_scheduled_time(at))
            .map(|(cron_job, _)| cron_job),
        // A static pod is called after its node, which owns it.
        "Node" => return without(&own, name).unwrap_or(&own).to_owned(),
        _ => None,
    };
    found.unwrap_or(name).to_owned()
}

/// `name` without `-<end>`.
fn without<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    name.strip_suffix(end)?
        .strip_suffix('-')
        .filter(|rest| !rest.is_empty())
}

/// What a CronJob appends to the names of its Jobs: Unix minutes, Unix seconds before Kubernetes 1.21.
fn is_scheduled_time(text: &str) -> bool {
    matches!(text.len(), 8 | 10) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn owned(kind: &str, owner: &str) -> ObjectMeta {
        let hash = ("pod-template-hash".to_owned(), "5d4f8".to_owned());
        ObjectMeta {
            name: Some("web-5d4f8-x7x2p".into()),
            labels: Some([hash].into()),
            owner_references: Some(vec![OwnerReference {
                kind: kind.into(),
                name: owner.into(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_pod_is_called_after_what_it_is_a_replica_of() {
        for (kind, owner, service) in [
            ("ReplicaSet", "web-5d4f8", "web"),
            ("ReplicaSet", "alone", "alone"),
            ("ReplicaSet", "-5d4f8", "-5d4f8"),
            ("StatefulSet", "db", "db"),
            ("DaemonSet", "agent", "agent"),
            ("Job", "migrate", "migrate"),
            ("Job", "migrate-2024", "migrate-2024"),
            ("Job", "nightly-29123456", "nightly"),
            ("Job", "nightly-1700000000", "nightly"),
            ("Node", "x7x2p", "web-5d4f8"),
            ("Kafka", "events", "events"),
        ] {
            assert_eq!(super::service(&owned(kind, owner)), service, "{kind} {owner}");
        }
        let bare = ObjectMeta { name: Some("alone".into()), ..ObjectMeta::default() };
        assert_eq!(super::service(&bare), "alone");
        let mut claimed = owned("ReplicaSet", "web-5d4f8");
        claimed.owner_references.as_mut().unwrap()[0].controller = None;
        assert_eq!(super::service(&claimed), "web-5d4f8-x7x2p");
    }
}
