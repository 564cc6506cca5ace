//! What the API server would refuse by the schema of a kind, said without an API server: which field, and why.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::{GROUP, VERSION, definitions};

/// Values that a message names at most.
const NAMED: usize = 8;

/// Kinds by name: whether they have a namespace, and the schema of their spec.
static KINDS: LazyLock<BTreeMap<String, (bool, Value)>> = LazyLock::new(|| {
    let kinds = definitions().into_iter().filter_map(|definition| {
        let namespaced = definition.spec.scope == "Namespaced";
        let kind = definition.spec.names.kind.clone();
        let mut definition = serde_json::to_value(definition).ok()?;
        let schema =
            definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec")?;
        Some((kind, (namespaced, schema.take())))
    });
    kinds.collect()
});

/// A field and what is wrong with it.
type Wrong = (String, String);

/// Checks an object of ours, apart from the rules in CEL, which whoever reads it checks again.
///
/// # Errors
///
/// The first field that is wrong, and why.
pub(crate) fn check(object: &Value) -> Result<(), Wrong> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some((namespaced, spec)) = KINDS.get(&text(&object["kind"])) else {
        return Err(("kind".into(), format!("no kind of {GROUP}")));
    };
    let version = format!("{GROUP}/{VERSION}");
    if text(&object["apiVersion"]) != version {
        return Err(("apiVersion".into(), format!("must be {version}")));
    }
    let meta = &object["metadata"];
    if text(&meta["name"]).is_empty() {
        return Err(("metadata.name".into(), "must be given".into()));
    }
    match (namespaced, text(&meta["namespace"]).is_empty()) {
        (true, true) => Err(("metadata.namespace".into(), "must be given".into())),
        (false, false) => {
            let why = "must not be given: it is an object of the cluster";
            Err(("metadata.namespace".into(), why.into()))
        }
        _ => look(spec, &object["spec"], "spec"),
    }
}

/// Checks a value against its schema.
fn look(schema: &Value, value: &Value, field: &str) -> Result<(), Wrong> {
    let wrong = |message: String| Err((field.to_owned(), message));
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let named = allowed.iter().take(NAMED).map(|one| match one {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let named: Vec<_> = named.collect();
        let more = if allowed.len() > NAMED { ", …" } else { "" };
        return wrong(format!("must be one of {}{more}", named.join(", ")));
    }
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(_)) => members(schema, value, field),
        ("object", _) => wrong("must be an object".into()),
        ("array", Value::Array(items)) => elements(schema, items, field),
        ("array", _) => wrong("must be a list".into()),
        ("string", Value::String(text)) => {
            let (count, most) = (text.chars().count(), bound(schema, "maxLength"));
            match (count > most, count < bound(schema, "minLength")) {
                (true, _) => wrong(format!("has {count} characters, {most} at most")),
                (_, true) => wrong("must not be empty".into()),
                _ => Ok(()),
            }
        }
        ("string", _) => wrong("must be text".into()),
        ("integer", value) => integer(schema, value, field),
        ("boolean", Value::Bool(_)) => Ok(()),
        ("boolean", _) => wrong("must be true or false".into()),
        _ => Ok(()),
    }
}

/// A bound of a schema: none is the loosest.
fn bound(schema: &Value, name: &str) -> usize {
    let loosest = if name.starts_with("max") { usize::MAX } else { 0 };
    let given = schema[name]
        .as_u64()
        .and_then(|bound| usize::try_from(bound).ok());
    given.unwrap_or(loosest)
}

fn members(schema: &Value, value: &Value, field: &str) -> Result<(), Wrong> {
    let members = value.as_object().into_iter().flatten();
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if value[name].is_null() {
            return Err((format!("{field}.{name}"), "must be given".into()));
        }
    }
    for (name, value) in members {
        let known = schema["properties"].get(name);
        let Some(inner) = known.or_else(|| schema.get("additionalProperties")) else {
            let known = schema["properties"].as_object().into_iter().flatten();
            let known: Vec<_> = known.map(|(name, _)| name.as_str()).collect();
            let why = format!("is no field; there are {}", known.join(", "));
            return Err((format!("{field}.{name}"), why));
        };
        let field = format!("{field}.{name}");
        if value.is_null() {
            return Err((field, "must not be null: leave it out".into()));
        }
        look(inner, value, &field)?;
    }
    Ok(())
}

fn elements(schema: &Value, items: &[Value], field: &str) -> Result<(), Wrong> {
    let (count, most) = (items.len(), bound(schema, "maxItems"));
    if count > most {
        return Err((field.to_owned(), format!("has {count} elements, {most} at most")));
    }
    let is_set = schema["x-kubernetes-list-type"] == "set";
    for (at, item) in items.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if is_set && items.iter().take(at).any(|other| other == item) {
            return Err((field, "is there twice".into()));
        }
        look(&schema["items"], item, &field)?;
    }
    Ok(())
}

fn integer(schema: &Value, value: &Value, field: &str) -> Result<(), Wrong> {
    let wrong = |message: String| Err((field.to_owned(), message));
    let Some(number) = value.as_i64() else { return wrong("must be a whole number".into()) };
    let bound = |name: &str| schema[name].as_f64();
    #[expect(clippy::cast_precision_loss, reason = "what is inexact is far beyond any bound")]
    let exact = number as f64;
    match (bound("minimum"), bound("maximum")) {
        (Some(least), _) if exact < least => wrong(format!("must be {least} at least")),
        (_, Some(most)) if exact > most => wrong(format!("must be {most} at most")),
        _ => Ok(()),
    }
}
