//! Groups by their criteria: pods by namespace and labels, addresses, and what stands for something of its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{NAMESPACE_LABEL, labels::Known};
use crate::Workload;

/// Ends of one rule.
const MAX_PEERS: usize = 32;
/// Criteria of one group.
const MAX_CRITERIA: usize = 64;

/// What groups are made of.
pub(super) struct Ends<'a> {
    /// Criteria of groups that are referred to by name.
    pub(super) definitions: &'a BTreeMap<String, Value>,
    pub(super) workloads: &'a [Workload],
}

/// Pods of namespaces, by label; `None` for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pods {
    pub(super) namespaces: Option<Value>,
    pub(super) labels: Option<Value>,
}

impl Pods {
    /// Whether all of them are in this one namespace.
    pub(super) fn is_in(&self, namespace: &str) -> bool {
        self.namespaces == Some(in_namespaces("In", &[namespace]))
    }
}

/// Its namespace, and labels of its pods.
type Service = (Option<Value>, Vec<Value>);

/// A criterion.
struct Criterion<'a> {
    at: usize,
    key: &'a str,
    op: &'a str,
    value: &'a str,
}

impl Criterion<'_> {
    fn wrong(&self, why: &str) -> String {
        format!(".criteria[{}]: {} {} {}: {why}", self.at, self.key, self.op, self.value)
    }

    /// `In` or `NotIn` one value.
    fn operator(&self) -> Result<&'static str, String> {
        match self.op {
            _ if self.value.contains(['*', '?']) => Err(self.wrong("a selector has no patterns")),
            "=" => Ok("In"),
            "!=" => Ok("NotIn"),
            _ => Err(self.wrong("a selector knows whole values only, `=` and `!=`")),
        }
    }
}

impl Ends<'_> {
    /// Ends that a rule may name.
    pub(super) fn peers(&self, selector: &Value, is_egress: bool) -> Result<Vec<Value>, String> {
        match selector["name"].as_str().unwrap_or_default() {
            "external" => return Ok(vec![json!({ "external": true })]),
            "nodes" => return Ok(vec![json!({ "nodes": true })]),
            "Workload:ingress" => {
                return Err(
                    ".name: what comes by way of a node's tunnel has no words in rules".into()
                );
            }
            _ => {}
        }
        let criteria = self.criteria(selector)?;
        let (addresses, others): (Vec<_>, Vec<_>) = read(&criteria)?
            .into_iter()
            .partition(|one| one.key == "address");
        if !addresses.is_empty() {
            if let Some(other) = others.first() {
                return Err(other.wrong("a group of addresses has no pods"));
            }
            return addresses
                .iter()
                .map(|one| address(one, is_egress))
                .collect();
        }
        let pods = self.pods(selector)?;
        Ok(pods
            .into_iter()
            .map(|pods| {
                let mut peer = json!({ "namespaceSelector": pods.namespaces.unwrap_or(json!({})) });
                if let Some(labels) = pods.labels {
                    peer["podSelector"] = labels;
                }
                peer
            })
            .collect())
    }

    /// Pods, any of these.
    pub(super) fn pods(&self, selector: &Value) -> Result<Vec<Pods>, String> {
        let name = selector["name"].as_str().unwrap_or_default();
        let is_other = ["fed.", "nv.ip.", "Host:", "Workload:"].iter();
        if matches!(name, "external" | "nodes")
            || is_other.into_iter().any(|one| name.starts_with(one))
        {
            return Err(format!(".name: {name} is no group of pods of this cluster"));
        }
        let criteria = self.criteria(selector)?;
        let (mut domains, mut services, mut names, mut labels) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for one in read(&criteria)? {
            match one.key {
                "domain" | "namespace" => domains.push(one),
                "service" => services.push(one),
                "container" if (one.op, one.value) == ("=", "*") => {}
                "container" | "image" | "node" => {
                    return Err(one.wrong("pods are selected by namespace and label"));
                }
                "address" => return Err(one.wrong("rules are about pods")),
                key if key.starts_with("ns:") => names.push(one),
                _ => labels.push(one),
            }
        }
        let (mut namespaces, own) = (alternatives(&names, "ns:")?, domain(&domains)?);
        if let Some(own) = own {
            for one in &mut namespaces {
                one.push(own.clone());
            }
        }
        let mut found = Vec::new();
        for namespaces in namespaces {
            for labels in alternatives(&labels, "")? {
                for (place, known) in self.services(&services)? {
                    let labels: Vec<_> = known.into_iter().chain(labels.clone()).collect();
                    let place = place.filter(|_| domains.is_empty());
                    let namespaces: Vec<_> = namespaces.iter().cloned().chain(place).collect();
                    found.push(Pods {
                        namespaces: expressions(&namespaces),
                        labels: expressions(&labels),
                    });
                }
            }
        }
        if found.len() > MAX_PEERS {
            return Err(format!(".criteria: stand for {} ends; {MAX_PEERS} at most", found.len()));
        }
        Ok(found)
    }

    fn criteria(&self, selector: &Value) -> Result<Value, String> {
        if selector["name_referral"] != true {
            return Ok(selector["criteria"].clone());
        }
        let name = selector["name"].as_str().unwrap_or_default();
        let known = self.definitions.get(name).cloned();
        known.ok_or_else(|| {
            format!(".name_referral: there is no NvGroupDefinition {name} in the file")
        })
    }

    /// Where services are and what their pods have in common; one that asks for nothing if there are no services.
    fn services(&self, services: &[Criterion<'_>]) -> Result<Vec<Service>, String> {
        if services.is_empty() {
            return Ok(vec![(None, Vec::new())]);
        }
        services
            .iter()
            .map(|one| {
                if one.operator()? != "In" {
                    return Err(one.wrong("services can't be excepted"));
                }
                let labels = Known::new(self.workloads).of(&format!("nv.{}", one.value));
                let labels = labels.map_err(|why| one.wrong(&why))?;
                let labels = labels
                    .iter()
                    .map(|(key, value)| requirement(key, "In", &[value]))
                    .collect();
                let place = one.value.rsplit_once('.');
                let place = place.map(|(_, place)| requirement(NAMESPACE_LABEL, "In", &[place]));
                Ok((place, labels))
            })
            .collect()
    }
}

fn read(criteria: &Value) -> Result<Vec<Criterion<'_>>, String> {
    let list = criteria.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        return Err(".criteria: there are none, so nobody knows who is meant".into());
    }
    if list.len() > MAX_CRITERIA {
        return Err(format!(".criteria: more than {MAX_CRITERIA}"));
    }
    let is_text = |one: &Value| {
        ["key", "op", "value"]
            .iter()
            .all(|field| one[field].is_string())
    };
    if let Some(at) = list.iter().position(|one| !is_text(one)) {
        return Err(format!(".criteria[{at}]: key, op and value must be texts"));
    }
    Ok(list
        .iter()
        .enumerate()
        .map(|(at, one)| Criterion {
            at,
            key: one["key"].as_str().unwrap_or_default(),
            op: one["op"].as_str().unwrap_or_default(),
            value: one["value"].as_str().unwrap_or_default(),
        })
        .collect())
}

/// Namespaces by name: any of them, or none of them.
fn domain(domains: &[Criterion<'_>]) -> Result<Option<Value>, String> {
    let Some(first) = domains.first() else { return Ok(None) };
    let operator = first.operator()?;
    let mut names = Vec::new();
    for one in domains {
        if one.operator()? != operator {
            return Err(one.wrong("either all of a key with `=` or all with `!=`"));
        }
        names.push(one.value);
    }
    Ok(Some(requirement(NAMESPACE_LABEL, operator, &names)))
}

/// Labels: of criteria with `=` any, of those with `!=` all must hold. Without criteria one that asks for nothing.
fn alternatives(labels: &[Criterion<'_>], prefix: &str) -> Result<Vec<Vec<Value>>, String> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut is_positive = None;
    for one in labels {
        let key = one.key.strip_prefix(prefix).unwrap_or(one.key);
        let now = one.operator()? == "In";
        if *is_positive.get_or_insert(now) != now {
            return Err(one.wrong("either all labels with `=` or all with `!=`"));
        }
        found.entry(key).or_default().push(one.value);
    }
    let one = |(key, values): (&&str, &Vec<&str>), operator| requirement(key, operator, values);
    Ok(match is_positive {
        None => vec![Vec::new()],
        Some(true) => found.iter().map(|label| vec![one(label, "In")]).collect(),
        Some(false) => vec![found.iter().map(|label| one(label, "NotIn")).collect()],
    })
}

/// A network, an address or a DNS name.
fn address(one: &Criterion<'_>, is_egress: bool) -> Result<Value, String> {
    if one.op != "=" {
        return Err(one.wrong("a rule has no exceptions; write the networks that are left"));
    }
    let value = one.value;
    let network = value.split('/').next().unwrap_or_default();
    if network.parse::<std::net::IpAddr>().is_ok() {
        return Ok(json!({ "cidr": value }));
    }
    let is_range = value
        .split_once('-')
        .is_some_and(|(low, _)| low.parse::<std::net::IpAddr>().is_ok());
    if is_range {
        return Err(one.wrong("write a range as networks"));
    }
    if value.starts_with("vh:") {
        return Err(one.wrong("names of virtual hosts have no words in rules"));
    }
    if !is_egress {
        return Err(one.wrong("a DNS name stands in egress only: who opens a flow has none"));
    }
    Ok(json!({ "name": value }))
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({ "key": key, "operator": operator, "values": values })
}

fn in_namespaces(operator: &str, names: &[&str]) -> Value {
    json!({ "matchExpressions": [requirement(NAMESPACE_LABEL, operator, names)] })
}

fn expressions(all: &[Value]) -> Option<Value> {
    (!all.is_empty()).then(|| json!({ "matchExpressions": all }))
}
