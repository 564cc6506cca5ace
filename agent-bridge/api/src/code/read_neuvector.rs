//! NeuVector's `NvSecurityRule` and `NvClusterSecurityRule` as objects of ours. What has no words in ours is named by its
//! field: what is about flows is refused, since a rule more or less is another policy; the rest is left out and said.

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use outrider_model::AppId;
use serde_json::{Map, Value, json};

use self::ends::{Ends, Pods};
use super::{API_VERSION, export};
use crate::Workload;

/// Kinds that are read.
pub const NEUVECTOR_KINDS: [&str; 2] = ["NvSecurityRule", "NvClusterSecurityRule"];
/// Rules of one object of ours in one direction.
const MAX_ENTRIES: usize = 64;
/// Characters of an object's name as it is made here.
const MAX_NAME: usize = 200;
/// Fields that are not about flows.
const OTHERS: [(&str, &str); 6] = [
    ("process", "processes are not controlled"),
    ("process_profile", "processes are not controlled"),
    ("file", "files are not controlled"),
    ("dlp", "there are no DLP sensors"),
    ("waf", "there are no WAF sensors"),
    ("response", "there are no response rules"),
];
/// Limits of a target.
const METERS: [&str; 4] = ["mon_metric", "grp_sess_cur", "grp_sess_rate", "grp_band_width"];

/// What came of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translated {
    /// Objects of ours.
    pub objects: Vec<Value>,
    /// What is left out or means something else, by field.
    pub notes: Vec<String>,
    /// What can't be said in rules, by field: then there are no objects.
    pub refused: Vec<String>,
}

/// Translates one object. `definitions` are the criteria of groups that it may refer to by name, `workloads` those by
/// which services are known.
#[must_use]
pub fn from_neuvector(
    object: &Value,
    definitions: &BTreeMap<String, Value>,
    workloads: &[Workload],
) -> Translated {
    let spec = &object["spec"];
    let mut reader = Reader {
        ends: Ends { definitions, workloads },
        namespace: object["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default"),
        name: export::name(object["metadata"]["name"].as_str().unwrap_or_default(), MAX_NAME),
        is_cluster: object["kind"] == "NvClusterSecurityRule",
        found: Translated::default(),
    };
    reader.note_others(spec);
    if let Some(targets) = reader.targets(&spec["target"]["selector"]) {
        reader.mode(&spec["target"]["policymode"], &targets);
        reader.rules(spec, &targets);
    }
    if !reader.found.refused.is_empty() {
        reader.found.objects.clear();
    }
    reader.found
}

/// Whether services must be known by their pods to translate an object.
#[must_use]
pub fn names_services(object: &Value) -> bool {
    match object {
        Value::Object(map) => {
            map.get("key").is_some_and(|key| key == "service") || map.values().any(names_services)
        }
        Value::Array(list) => list.iter().any(names_services),
        _ => false,
    }
}

struct Reader<'a> {
    ends: Ends<'a>,
    namespace: &'a str,
    name: String,
    is_cluster: bool,
    found: Translated,
}

/// Rules of one priority, both ways.
#[derive(Default)]
struct Ways {
    ingress: Vec<Value>,
    egress: Vec<Value>,
}

impl Reader<'_> {
    fn note_others(&mut self, spec: &Value) {
        for (field, why) in OTHERS {
            match &spec[field] {
                Value::Null => {}
                Value::Array(list) => {
                    let lines =
                        (0..list.len()).map(|at| format!("spec.{field}[{at}] is left out: {why}"));
                    self.found.notes.extend(lines);
                }
                _ => self
                    .found
                    .notes
                    .push(format!("spec.{field} is left out: {why}")),
            }
        }
        for field in METERS {
            let meter = &spec["target"]["selector"][field];
            if !(meter.is_null() || *meter == json!(false) || *meter == json!(0)) {
                self.found.notes.push(format!(
                    "spec.target.selector.{field} is left out: groups have no meters"
                ));
            }
        }
    }

    /// The pods that it is about.
    fn targets(&mut self, selector: &Value) -> Option<Vec<Pods>> {
        match self.ends.pods(selector) {
            Ok(pods) if self.is_cluster => return Some(pods),
            Ok(pods) if pods.iter().all(|one| one.is_in(self.namespace)) => return Some(pods),
            Ok(_) => self.found.refused.push(format!(
                "spec.target.selector: must have the criterion domain = {}",
                self.namespace
            )),
            Err(why) => self
                .found
                .refused
                .push(format!("spec.target.selector{why}")),
        }
        None
    }

    fn mode(&mut self, mode: &Value, targets: &[Pods]) {
        let mode = match mode {
            Value::Null => return,
            mode => mode.as_str().unwrap_or_default(),
        };
        if matches!(mode, "" | "N/A") {
            return;
        }
        if !["Discover", "Monitor", "Protect"].contains(&mode) {
            let field = "spec.target.policymode";
            return self
                .found
                .refused
                .push(format!("{field}: {mode:?} is no mode"));
        }
        for (at, pods) in targets.iter().enumerate() {
            let mut spec = self.selector(pods);
            spec.insert("mode".into(), mode.into());
            let name = numbered(&self.name, at);
            self.put("Mode", &name, &spec);
        }
    }

    fn rules(&mut self, spec: &Value, targets: &[Pods]) {
        let mut all: BTreeMap<u64, Ways> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for way in ["ingress", "egress"] {
            for (at, rule) in spec[way].as_array().into_iter().flatten().enumerate() {
                let priority = rule["priority"].as_u64().unwrap_or_default();
                match self.entry(rule, way, &mut names) {
                    Ok(entry) => {
                        let ways = all.entry(priority).or_default();
                        let ways =
                            if way == "ingress" { &mut ways.ingress } else { &mut ways.egress };
                        let overtaken = ways.iter().any(|before| before["action"] == "Allow");
                        if entry["action"] == "Deny" && overtaken {
                            self.found.notes.push(format!(
                                "spec.{way}[{at}]: of equal priority Deny comes first here; it came after an allow"
                            ));
                        }
                        ways.push(entry);
                    }
                    Err(why) => self.found.refused.push(format!("spec.{way}[{at}]{why}")),
                }
            }
        }
        if !self.is_cluster && !all.is_empty() {
            self.found.notes.push(
                "rules hold at the target alone: what peers may open or receive their own namespaces' rules say".into(),
            );
        }
        for (priority, ways) in all {
            for (at, pods) in targets.iter().enumerate() {
                self.object(&format!("{}-{priority}", self.name), at, pods, (priority, &ways));
            }
        }
    }

    fn object(&mut self, name: &str, at: usize, pods: &Pods, (priority, ways): (u64, &Ways)) {
        let mut spec = Map::new();
        spec.insert("priority".into(), priority.into());
        let target = self.selector(pods);
        if !target.is_empty() {
            spec.insert("target".into(), target.into());
        }
        for (way, list) in [("ingress", &ways.ingress), ("egress", &ways.egress)] {
            if list.len() > MAX_ENTRIES {
                self.found.refused.push(format!(
                    "spec.{way}: {} rules of priority {priority}; an object has {MAX_ENTRIES} at most",
                    list.len()
                ));
            }
            if !list.is_empty() {
                spec.insert(way.into(), list.clone().into());
            }
        }
        self.put("Rule", &numbered(name, at), &spec);
    }

    fn put(&mut self, kind: &str, name: &str, spec: &Map<String, Value>) {
        let (kind, metadata) = match (self.is_cluster, kind) {
            (true, "Rule") => ("ClusterNetworkRule", json!({ "name": name })),
            (true, _) => ("ClusterWorkloadMode", json!({ "name": name })),
            (false, "Rule") => {
                ("NetworkRule", json!({ "name": name, "namespace": self.namespace }))
            }
            (false, _) => ("WorkloadMode", json!({ "name": name, "namespace": self.namespace })),
        };
        let object = json!({
            "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec,
        });
        self.found.objects.push(object);
    }

    /// Which pods, as a target or a mode says it.
    fn selector(&self, pods: &Pods) -> Map<String, Value> {
        let mut selector = Map::new();
        if self.is_cluster
            && let Some(namespaces) = &pods.namespaces
        {
            selector.insert("namespaceSelector".into(), namespaces.clone());
        }
        if let Some(labels) = &pods.labels {
            selector.insert("podSelector".into(), labels.clone());
        }
        selector
    }

    fn entry(
        &self,
        rule: &Value,
        way: &str,
        names: &mut BTreeSet<String>,
    ) -> Result<Value, String> {
        let name = rule["name"].as_str().unwrap_or_default();
        let action = match rule["action"].as_str() {
            Some("allow") => "Allow",
            Some("deny") => "Deny",
            other => return Err(format!(".action: {other:?} is neither allow nor deny")),
        };
        let mut entry = json!({ "name": export::free(names, name), "action": action });
        let peers = self
            .ends
            .peers(&rule["selector"], way == "egress")
            .map_err(|why| format!(".selector{why}"))?;
        for (field, list) in [
            ("peers", peers),
            ("applications", applications(&rule["applications"])?),
            ("ports", ports(&rule["ports"])?),
        ] {
            if !list.is_empty() {
                entry[field] = list.into();
            }
        }
        Ok(entry)
    }
}

fn applications(said: &Value) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for (at, name) in said.as_array().into_iter().flatten().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if name.is_empty() || name.eq_ignore_ascii_case("any") {
            return Ok(Vec::new());
        }
        let known = AppId::from_name(name).and_then(AppId::name);
        let known = known.ok_or_else(|| {
            format!(".applications[{at}]: {name:?} is no application that is identified")
        })?;
        found.push(known.into());
    }
    Ok(found)
}

/// `tcp/80, 443 udp/any`; no protocol is TCP.
fn ports(said: &Value) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    let text = said.as_str().unwrap_or_default();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let word = word.to_ascii_lowercase();
        let numbers = |text: &str| {
            let mut ends = text.splitn(2, '-').map(str::parse::<u16>);
            ends.all(|end| end.is_ok())
        };
        let range = word.split_once('/');
        match (word.as_str(), range) {
            ("any", _) => return Ok(Vec::new()),
            ("icmp", _) => found.push(word.into()),
            (_, None) if numbers(&word) => found.push(format!("tcp/{word}").into()),
            (_, Some(("tcp" | "udp", range))) if range == "any" || numbers(range) => {
                found.push(word.into());
            }
            _ => return Err(format!(".ports: {word:?} is no port")),
        }
    }
    Ok(found)
}

fn numbered(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}-{}", at.saturating_add(1)) }
}

#[cfg(test)]
mod tests;
