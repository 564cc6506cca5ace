//! The OpenAPI 3.1 document, made from the types themselves.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    CAPTURE_ID, CAPTURE_TYPE, Capture, CaptureRequest, Conversation, ErrorBody, EventsQuery,
    ExplainQuery, Explanation, Flow, Gap, ListQuery, ModeChange, ModeReply, ModeRequest,
    NEXT_CURSOR, PolicyChange, PolicyReply, PolicyRequest, PolicyText, ReplayReply, ReplayRequest,
    Rule, Session, Status, Threat, Violation, Workload, paths,
};

/// Where the document keeps schemas.
const SCHEMAS: &str = "/components/schemas";

/// The document of every path that the bridge serves.
#[must_use]
pub fn document() -> Value {
    let mut types = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = SCHEMAS.into())
        .into_generator();
    let error = types.subschema_for::<ErrorBody>().to_value();
    let mut paths = Map::new();
    for (path, method, mut operation) in operations(&mut types) {
        if let Some(answers) = operation
            .get_mut("responses")
            .and_then(Value::as_object_mut)
        {
            let refused = answer("Refused; `error` says why and what to do.", error.clone());
            answers.insert("default".into(), refused);
        }
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(method.into(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrider bridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What one node's bridge knows: times are Unix seconds, workloads are \
                named <namespace>/<name>. Members may be added in later versions.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:15180" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": types.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

type Operation = (&'static str, &'static str, Value);

fn operations(types: &mut SchemaGenerator) -> Vec<Operation> {
    let mut all = lists(types);
    all.push((paths::STATUS, "get", object::<Status>(types, "status", "How the bridge is")));
    let mut explain = object::<Explanation>(
        types,
        "explain",
        "Which rule decides about a flow, why, and what would allow it",
    );
    explain["parameters"] = parameters::<ExplainQuery>();
    all.push((paths::EXPLAIN, "get", explain));
    all.push((paths::EVENTS, "get", events(types)));
    for (path, names) in [(paths::MODE, &["name"][..]), (paths::MODE_FULL, &["namespace", "name"])]
    {
        let id = if names.len() == 1 { "setMode" } else { "setModeOfFullName" };
        let about = "Set the mode of a workload's group; answers once it is stored and pushed";
        let mut operation = changing::<ModeRequest, ModeReply>(types, id, about);
        operation["parameters"] = names.iter().map(|name| in_path(name)).collect();
        all.push((path, "put", operation));
    }
    all.extend(captures(types));
    all.extend(policy(types));
    let document = json!({
        "operationId": "openapi",
        "summary": "This document",
        "responses": { "200": answer("An OpenAPI 3.1 document.", json!({ "type": "object" })) },
    });
    all.push((paths::OPENAPI, "get", document));
    all
}

fn lists(types: &mut SchemaGenerator) -> Vec<Operation> {
    vec![
        (paths::WORKLOADS, "get", list::<Workload>(types, "workloads", "Pods with a mailbox")),
        (
            paths::CONVERSATIONS,
            "get",
            list::<Conversation>(types, "conversations", "Flows summed by ends, app and port"),
        ),
        (paths::RULES, "get", list::<Rule>(types, "rules", "Rules with their evidence")),
        (
            paths::VIOLATIONS,
            "get",
            list::<Violation>(types, "violations", "Traffic outside policy, newest first"),
        ),
        (paths::THREATS, "get", list::<Threat>(types, "threats", "Findings, newest first")),
        (paths::FLOWS, "get", list::<Flow>(types, "flows", "Samples of flows, newest first")),
        (paths::SESSIONS, "get", list::<Session>(types, "sessions", "Flows that are open now")),
    ]
}

fn captures(types: &mut SchemaGenerator) -> Vec<Operation> {
    let mut all = Vec::new();
    let starts = [
        (paths::CAPTURE, "capture", &["name"][..]),
        (paths::CAPTURE_FULL, "captureOfFullName", &["namespace", "name"]),
    ];
    for (path, id, names) in starts {
        let body = types.subschema_for::<CaptureRequest>();
        let file = json!({ "type": "string", "contentMediaType": CAPTURE_TYPE });
        let operation = json!({
            "operationId": id,
            "summary": "Capture a workload's packets; the answer comes as they do and ends with the capture",
            "parameters": names.iter().map(|name| in_path(name)).collect::<Value>(),
            "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
            "security": [{ "token": [] }, {}],
            "responses": { "200": {
                "description": "A pcapng file. An answer that is cut off is not the whole capture.",
                "headers": { CAPTURE_ID: {
                    "description": "The capture's name.", "schema": { "type": "string" },
                } },
                "content": { CAPTURE_TYPE: { "schema": file } },
            } },
        });
        all.push((path, "post", operation));
    }
    let list = object::<Vec<Capture>>(types, "captures", "Captures that run, and the last ones");
    all.push((paths::CAPTURES, "get", list));
    let about =
        "End a capture that runs: what was seen until now still comes; forget one that is over";
    let mut stop = object::<Capture>(types, "stopCapture", about);
    stop["parameters"] = [in_path("id")].into_iter().collect();
    stop["security"] = json!([{ "token": [] }, {}]);
    all.push((paths::CAPTURE_STOP, "delete", stop));
    all
}

fn policy(types: &mut SchemaGenerator) -> Vec<Operation> {
    let text = object::<PolicyText>(types, "policy", "What people wrote, as it is in the file");
    let about = "Replace what people wrote, if every object of it is accepted";
    let write = changing::<PolicyRequest, PolicyReply>(types, "setPolicy", about);
    let about =
        "What would become of the conversations that are known, were other objects in force";
    let replay = changing::<ReplayRequest, ReplayReply>(types, "replayPolicy", about);
    vec![
        (paths::POLICY, "get", text),
        (paths::POLICY, "put", write),
        (paths::REPLAY, "post", replay),
    ]
}

/// An operation with a body that takes the right to change something.
fn changing<Q: JsonSchema, A: JsonSchema>(
    types: &mut SchemaGenerator,
    id: &str,
    about: &str,
) -> Value {
    let mut operation = object::<A>(types, id, about);
    let body = types.subschema_for::<Q>();
    operation["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": body } } });
    operation["security"] = json!([{ "token": [] }, {}]);
    operation
}

fn object<T: JsonSchema>(types: &mut SchemaGenerator, id: &str, summary: &str) -> Value {
    let schema = types.subschema_for::<T>().to_value();
    json!({
        "operationId": id,
        "summary": summary,
        "responses": { "200": answer(summary, schema) },
    })
}

fn list<T: JsonSchema>(types: &mut SchemaGenerator, id: &str, summary: &str) -> Value {
    let mut operation = object::<Vec<T>>(types, id, summary);
    operation["parameters"] = parameters::<ListQuery>();
    operation["responses"]["200"]["headers"] = json!({
        NEXT_CURSOR: {
            "description": "The `cursor` of the next page, if there is one.",
            "schema": { "type": "string" },
        },
    });
    operation
}

fn events(types: &mut SchemaGenerator) -> Value {
    let data = json!({
        "flow": types.subschema_for::<Flow>(),
        "violation": types.subschema_for::<Violation>(),
        "threat": types.subschema_for::<Threat>(),
        "mode": types.subschema_for::<ModeChange>(),
        "policy": types.subschema_for::<PolicyChange>(),
        "gap": types.subschema_for::<Gap>(),
    });
    let mut parameters = parameters::<EventsQuery>();
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(json!({
            "name": "Last-Event-ID",
            "in": "header",
            "required": false,
            "description": "Id of the last event that was had; the stream goes on behind it.",
            "schema": { "type": "string" },
        }));
    }
    json!({
        "operationId": "events",
        "summary": "What happens, as it happens",
        "parameters": parameters,
        "responses": { "200": {
            "description": "Server-sent events; `x-event-data` has the form of `data:` by `event:`.",
            "content": { "text/event-stream": {
                "schema": { "type": "string" },
                "x-event-data": data,
            } },
        } },
    })
}

fn answer(description: &str, schema: impl Into<Value>) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": schema.into() } },
    })
}

fn in_path(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

/// The members of a query type as parameters.
fn parameters<T: JsonSchema>() -> Value {
    let types = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator();
    let schema = types.into_root_schema_for::<T>().to_value();
    let required = |name: &str| {
        let listed = schema.get("required").and_then(Value::as_array);
        listed.is_some_and(|listed| listed.iter().any(|one| one == name))
    };
    let members = schema.get("properties").and_then(Value::as_object);
    members
        .into_iter()
        .flatten()
        .map(|(name, member)| {
            let mut member = member.clone();
            let about = member
                .as_object_mut()
                .and_then(|member| member.remove("description"));
            json!({
                "name": name,
                "in": "query",
                "required": required(name),
                "description": about,
                "schema": member,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` in a value.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(
                    members
                        .get("$ref")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                members.values().for_each(|one| references(one, found));
            }
            Value::Array(items) => items.iter().for_each(|one| references(one, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_operation_is_named_once_and_every_member_is_described() {
        let document = document();
        let mut names = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                assert!(names.insert(operation["operationId"].as_str().unwrap()), "{path}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let is_said = parameter["in"] == "path" || parameter["description"].is_string();
                    assert!(is_said, "{path} {parameter}");
                }
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(schema["description"].is_string(), "{name}.{member}");
            }
        }
    }
}
