//! Puts what was made into the pod's lists, and says so in its annotations.

use outrider_model::names;
use serde_json::{Map, Value, json};

use super::{
    INIT, MAILBOX, PROXY, STATUS, Sidecar,
    containers::Made,
    patch::{Patch, escaped},
    pod::{Container, List, Pod, text},
    settings::Settings,
};

/// Where in a list ours belong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    First,
    Last,
}

/// Containers and volume. What is there as it should be stays.
pub(super) fn place(pod: &Pod<'_>, made: &Made, patch: &mut Patch) {
    let (init, main) = match made.sidecar {
        Sidecar::Native => (vec![&made.init, &made.proxy], Vec::new()),
        Sidecar::Classic => (vec![&made.init], vec![&made.proxy]),
    };
    let place = if made.init_last { Place::Last } else { Place::First };
    place_containers(pod, List::Init, &init, place, patch);
    place_containers(pod, List::Containers, &main, Place::First, patch);
    place_volume(pod, &made.volume, patch);
}

fn place_containers(pod: &Pod<'_>, list: List, ours: &[&Value], place: Place, patch: &mut Patch) {
    let all: Vec<_> = pod.containers(list).collect();
    let there: Vec<_> = all
        .iter()
        .filter(|container| container.has_our_name())
        .collect();
    let first = match place {
        Place::First => 0,
        Place::Last => all.len().saturating_sub(ours.len()),
    };
    let right = there.len() == ours.len()
        && there
            .iter()
            .zip(ours)
            .enumerate()
            .all(|(at, (is, should))| is.index == first + at && is_as_made(should, is.value));
    if right {
        return;
    }
    there
        .iter()
        .rev()
        .for_each(|container| patch.remove(container.path()));
    let path = format!("/spec/{}", list.field());
    if !pod.spec()[list.field()].is_array() && !ours.is_empty() {
        patch.add(path.clone(), json!([]));
    }
    for (at, container) in ours.iter().enumerate() {
        let at = if place == Place::First { at.to_string() } else { "-".to_owned() };
        patch.add(format!("{path}/{at}"), (*container).clone());
    }
}

fn place_volume(pod: &Pod<'_>, volume: &Value, patch: &mut Patch) {
    let all = pod.volumes().iter().enumerate();
    let there: Vec<_> = all
        .filter(|(_, volume)| text(volume, "name") == Some(MAILBOX))
        .collect();
    if matches!(&there[..], [(_, is)] if is_as_made(volume, is)) {
        return;
    }
    for (index, _) in there.iter().rev() {
        patch.remove(format!("/spec/volumes/{index}"));
    }
    if pod.spec()["volumes"].is_array() {
        patch.add("/spec/volumes/-".to_owned(), volume.clone());
    } else {
        patch.add("/spec/volumes".to_owned(), json!([volume]));
    }
}

/// Whether what is there is what was made, give or take what the API server itself adds on the way: the
/// service account's token, and what a LimitRange says of resources that we leave open.
fn is_as_made(made: &Value, is: &Value) -> bool {
    let (Some(made), Some(is)) = (made.as_object(), is.as_object()) else { return made == is };
    let said = made.iter().all(|(key, should)| {
        let there = is.get(key).unwrap_or(&Value::Null);
        match key.as_str() {
            "volumeMounts" => mounts_are_as_made(should, there),
            "resources" | "requests" | "limits" | "securityContext" => is_as_made(should, there),
            "cpu" | "memory" => amount(should).is_some() && amount(should) == amount(there),
            _ => should == there || is_empty(should) && is_empty(there),
        }
    });
    let more = is.iter().filter(|(key, _)| !made.contains_key(*key));
    said && more
        .into_iter()
        .all(|(key, value)| may_be_added(key, value))
}

fn mounts_are_as_made(made: &Value, is: &Value) -> bool {
    let is = is.as_array().map_or(&[][..], Vec::as_slice);
    let made = made.as_array().map_or(&[][..], Vec::as_slice);
    let is_no_token = |mount: &&Value| text(mount, "mountPath") != Some(TOKEN);
    is.iter().filter(is_no_token).eq(made)
}

/// The API server writes amounts in a form of its own: `0.5` becomes `500m`.
fn amount(value: &Value) -> Option<u128> {
    super::values::quantity(value.as_str()?)
}

fn may_be_added(key: &str, value: &Value) -> bool {
    let by_a_limit_range = matches!(key, "cpu" | "memory" | "ephemeral-storage");
    let by_default = key == "procMount" && value == "Default";
    let a_token = key == "volumeMounts" && mounts_are_as_made(&Value::Null, value);
    is_empty(value) || by_a_limit_range || by_default || a_token
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// What was injected, where metrics are, and which container is meant where none is named.
///
/// # Errors
/// When the pod has its metrics read from the proxy's own ports.
pub(super) fn annotate(
    pod: &Pod<'_>,
    made: &Made,
    settings: &Settings,
    patch: &mut Patch,
) -> Result<(), Vec<String>> {
    let mut wanted = Map::new();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "sidecar": made.sidecar.to_string(),
        "containers": [INIT, PROXY],
        "volumes": [MAILBOX],
        "settings": settings.all_changed(),
    });
    wanted.insert(STATUS.to_owned(), status.to_string().into());
    if settings.get("metrics") == "on" && !scraped(pod)? {
        for (key, value) in scrape() {
            wanted.insert(key.to_owned(), value.into());
        }
    }
    if made.sidecar == Sidecar::Classic && pod.annotation(DEFAULT_CONTAINER).is_none() {
        // Else it were the first one, which is ours.
        let first = pod.neighbours(List::Containers).next();
        let name = first.map_or("", |container: Container<'_>| container.name());
        wanted.insert(DEFAULT_CONTAINER.to_owned(), name.into());
    }
    let Some(there) = pod.annotations() else {
        patch.add("/metadata/annotations".to_owned(), wanted.into());
        return Ok(());
    };
    for (key, value) in wanted {
        if there.get(&key) != Some(&value) {
            patch.add(format!("/metadata/annotations/{}", escaped(&key)), value);
        }
    }
    Ok(())
}

/// Whether the pod says itself how its metrics are read.
fn scraped(pod: &Pod<'_>) -> Result<bool, Vec<String>> {
    let said = |key| pod.annotation(key);
    if scrape().iter().all(|(key, value)| said(key) == Some(value)) {
        return Ok(true);
    }
    let port = said("prometheus.io/port").and_then(super::values::port);
    if port.is_some_and(super::neighbours::is_own_port) {
        return Err(vec![format!(
            "annotation prometheus.io/port is {:?}: that port is the proxy's; allowed is the application's",
            said("prometheus.io/port").unwrap_or_default()
        )]);
    }
    Ok(scrape().iter().any(|(key, _)| said(key).is_some()))
}

fn scrape() -> [(&'static str, &'static str); 3] {
    const { assert!(names::HEALTH_PORT == 15120) };
    [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", "15120"),
        ("prometheus.io/path", "/metrics"),
    ]
}

/// Which container `kubectl logs` and `kubectl exec` mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Where the API server mounts the token of the service account.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
