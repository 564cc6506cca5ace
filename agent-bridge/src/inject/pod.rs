//! A pod's JSON, looked at with care: what is too much or of the wrong kind is refused once, so
//! that what comes after has only to look. Fields that nobody here knows are left as they are.

use serde_json::Value;

use super::{INIT, PROXY};

/// Containers of one kind in one pod.
pub const MAX_CONTAINERS: usize = 64;
/// Volumes of a pod, and mounts of a container.
pub const MAX_VOLUMES: usize = 256;
/// Ports of a container.
pub const MAX_PORTS: usize = 256;

/// Which containers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum List {
    /// What the pod is for.
    Containers,
    /// Before it.
    Init,
    /// Put into it while it runs.
    Ephemeral,
}

impl List {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Containers, Self::Init, Self::Ephemeral];

    /// The member of `spec`.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Init => "initContainers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// A pod whose shape is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod<'a>(&'a Value);

/// A container and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Container<'a> {
    /// Its JSON: an object with a name.
    pub value: &'a Value,
    /// Which list it is in.
    pub list: List,
    /// Where in it.
    pub index: usize,
}

impl<'a> Container<'a> {
    /// Its name.
    pub(super) fn name(&self) -> &'a str {
        text(self.value, "name").unwrap_or_default()
    }

    /// Whether it has a name that only we give.
    pub(super) fn has_our_name(&self) -> bool {
        matches!(self.name(), INIT | PROXY)
    }

    /// The pointer to it.
    pub(super) fn path(&self) -> String {
        format!("/spec/{}/{}", self.list.field(), self.index)
    }

    /// How a message names it.
    pub(super) fn shown(&self) -> String {
        format!("container {}", self.name().chars().take(MAX_SHOWN).collect::<String>())
    }

    /// The port of that number or name; a name is looked up among the container's own.
    pub(super) fn port(&self, port: &Value) -> Option<u16> {
        if let Some(number) = port.as_u64() {
            return u16::try_from(number).ok().filter(|port| *port > 0);
        }
        let name = port.as_str()?;
        if let Ok(number) = name.parse() {
            return Some(number).filter(|port| *port > 0);
        }
        let named = items(self.value, "ports")
            .iter()
            .find(|port| text(port, "name") == Some(name))?;
        u16::try_from(named["containerPort"].as_u64()?).ok()
    }
}

impl<'a> Pod<'a> {
    /// Checks the shape.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(pod: &'a Value) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        for field in ["metadata", "spec"] {
            if !pod[field].is_object() {
                wrong.push(format!("{field}: must be an object"));
            }
        }
        for field in ["labels", "annotations"] {
            let map = &pod["metadata"][field];
            let fits = map
                .as_object()
                .is_some_and(|map| map.values().all(Value::is_string));
            if !map.is_null() && !fits {
                wrong.push(format!("metadata.{field}: must be an object of texts"));
            }
        }
        for list in List::ALL {
            check_containers(&pod["spec"], list, &mut wrong);
        }
        check_list(&pod["spec"], "volumes", MAX_VOLUMES, "spec", &mut wrong);
        if items(&pod["spec"], "containers").is_empty() && wrong.is_empty() {
            wrong.push("spec.containers: there is none".to_owned());
        }
        if wrong.is_empty() { Ok(Self(pod)) } else { Err(wrong) }
    }

    /// Its `spec`.
    pub(super) fn spec(self) -> &'a Value {
        &self.0["spec"]
    }

    /// The containers of one kind.
    pub(super) fn containers(self, list: List) -> impl Iterator<Item = Container<'a>> {
        let all = items(self.spec(), list.field()).iter().enumerate();
        all.map(move |(index, value)| Container { value, list, index })
    }

    /// The containers of one kind that are not ours by name.
    pub(super) fn neighbours(self, list: List) -> impl Iterator<Item = Container<'a>> {
        self.containers(list)
            .filter(|container| !container.has_our_name())
    }

    /// Its volumes.
    pub(super) fn volumes(self) -> &'a [Value] {
        items(self.spec(), "volumes")
    }

    /// An annotation.
    pub(super) fn annotation(self, key: &str) -> Option<&'a str> {
        annotation(self.0, key)
    }

    /// All annotations; `None` if it has no map of them.
    pub(super) fn annotations(self) -> Option<&'a serde_json::Map<String, Value>> {
        self.0["metadata"]["annotations"].as_object()
    }
}

fn check_containers(spec: &Value, list: List, wrong: &mut Vec<String>) {
    check_list(spec, list.field(), MAX_CONTAINERS, "spec", wrong);
    for (index, container) in items(spec, list.field())
        .iter()
        .enumerate()
        .take(MAX_CONTAINERS)
    {
        let at = format!("spec.{}[{index}]", list.field());
        if text(container, "name").is_none() {
            wrong.push(format!("{at}.name: must be a text"));
        }
        for (field, most) in [("ports", MAX_PORTS), ("volumeMounts", MAX_VOLUMES)] {
            check_list(container, field, most, &at, wrong);
        }
        let context = &container["securityContext"];
        for (field, value) in [
            ("securityContext", context),
            ("securityContext.capabilities", &context["capabilities"]),
            ("livenessProbe", &container["livenessProbe"]),
            ("readinessProbe", &container["readinessProbe"]),
            ("startupProbe", &container["startupProbe"]),
        ] {
            if !value.is_null() && !value.is_object() {
                wrong.push(format!("{at}.{field}: must be an object"));
            }
        }
    }
}

fn check_list(holder: &Value, field: &str, most: usize, at: &str, wrong: &mut Vec<String>) {
    let list = &holder[field];
    match list.as_array() {
        None if !list.is_null() => wrong.push(format!("{at}.{field}: must be a list")),
        Some(items) if items.len() > most => {
            wrong.push(format!("{at}.{field}: more than {most}"));
        }
        Some(items) if !items.iter().all(Value::is_object) => {
            wrong.push(format!("{at}.{field}: must be a list of objects"));
        }
        _ => {}
    }
}

/// The items of a list, none if there is no list.
pub(super) fn items<'a>(holder: &'a Value, field: &str) -> &'a [Value] {
    holder[field].as_array().map_or(&[], Vec::as_slice)
}

/// A member that is a text.
pub(super) fn text<'a>(holder: &'a Value, field: &str) -> Option<&'a str> {
    holder[field].as_str()
}

/// An annotation of a pod.
pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    text(&pod["metadata"]["annotations"], key)
}

/// A label of a pod.
pub(super) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    text(&pod["metadata"]["labels"], key)
}

/// Characters of a name that a message repeats.
const MAX_SHOWN: usize = 63;
