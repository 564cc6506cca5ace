//! Questions and answers.

use hyper::{Method, StatusCode, body::Bytes};
use outrider_agent_bridge::{
    inject::Operation,
    webhook::{MAX_BODY, Terms, settings::Namespaces},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    apply::{applied, cluster, enforced, injected, pod},
    world::{Connection, World, review, settings, tls},
};

fn decoded(patch: &Value) -> Vec<u8> {
    let text = patch.as_str().unwrap();
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        held = held << 6 | u32::from(digit(letter));
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    bytes
}

#[tokio::test]
async fn a_pod_is_patched_validated_and_counted() {
    let world = World::own(Terms::default()).await;
    let plain = pod(json!({ "name": "app" }));
    let (status, answer) = world.ask("/inject/enforced", &review(&plain)).await;
    assert_eq!(status, StatusCode::OK);
    let response = &answer["response"];
    assert_eq!((&answer["kind"], &response["uid"]), (&"AdmissionReview".into(), &"7a1c".into()));
    assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
    let patch: Value = serde_json::from_slice(&decoded(&response["patch"])).unwrap();
    let should = injected(&plain, &enforced(), &cluster(&Value::Null))
        .unwrap()
        .patch;
    assert_eq!(patch, serde_json::to_value(&should).unwrap());
    let made = applied(&plain, &should);
    // Again, and validated: nothing to change. Validated as it was: refused.
    for path in ["/inject/enforced", "/validate/enforced"] {
        let (_, answer) = world.ask(path, &review(&made)).await;
        assert_eq!(
            (&answer["response"]["allowed"], &answer["response"]["patch"]),
            (&true.into(), &Value::Null)
        );
    }
    let (_, answer) = world.ask("/validate/enforced", &review(&plain)).await;
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("not as injection makes it"), "{message}");
    // Not asked for.
    let (_, answer) = world.ask("/inject", &review(&plain)).await;
    assert_eq!(
        answer["response"]["auditAnnotations"],
        json!({ "decision": "skip", "reason": "not-asked" })
    );
    for (label, count) in [
        ("inject\",reason=\"", 1),
        ("unchanged\",reason=\"", 2),
        ("refuse\",reason=\"", 1),
        ("skip\",reason=\"not-asked", 1),
    ] {
        let metric = format!("outrider_webhook_decisions_total{{decision=\"{label}\"}}");
        assert_eq!(world.count(&metric).await, count, "{metric}");
    }
    world.end().await;
}

#[tokio::test]
async fn refusals_and_warnings_reach_who_asked() {
    let world = World::own(Terms::default()).await;
    let mut bad = pod(json!({ "name": "app", "securityContext": { "runAsUser": 1771 } }));
    bad["metadata"]["annotations"] = json!({ "outrider.dev/logLevel": "loud" });
    let (_, answer) = world.ask("/inject/enforced", &review(&bad)).await;
    let status = &answer["response"]["status"];
    assert_eq!((&answer["response"]["allowed"], &status["code"]), (&false.into(), &403.into()));
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("outrider.dev/logLevel is \"loud\": allowed is error, warn"),
        "{message}"
    );
    let mut host = pod(json!({ "name": "app" }));
    host["spec"]["hostNetwork"] = true.into();
    let (_, answer) = world.ask("/inject/enforced", &review(&host)).await;
    assert_eq!(answer["response"]["warnings"], json!(["outrider: not covered: host-network"]));
    let debug = json!({ "name": "debug", "targetContainerName": "outrider-proxy" });
    let before = pod(json!({ "name": "app" }));
    let mut change = review(&before);
    change["request"]["operation"] = "UPDATE".into();
    change["request"]["subResource"] = "ephemeralcontainers".into();
    change["request"]["oldObject"] = before;
    change["request"]["object"]["spec"]["ephemeralContainers"] = vec![debug].into();
    let (_, answer) = world.ask("/validate/enforced", &change).await;
    assert_eq!(answer["response"]["allowed"], false);
    world.end().await;
}

#[tokio::test]
async fn namespaces_come_from_the_file_and_follow_it() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("namespaces.json");
    let write = |injection: &str| {
        let list = json!({ "items": [{ "metadata": {
            "name": "shop", "labels": { "outrider.dev/injection": injection } } }] });
        let beside = dir.path().join("beside");
        std::fs::write(&beside, list.to_string()).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    write("enforced");
    let mut settings = settings(dir.path());
    settings.namespaces = Namespaces::File(file.clone());
    let other = TempDir::new().unwrap();
    settings.bundle = Some(other.path().join("bundle.pem"));
    let world = World::start(other, settings, Terms::default()).await;
    let plain = review(&pod(json!({ "name": "app" })));
    assert!(world.ask("/inject", &plain).await.1["response"]["patch"].is_string());
    write("disabled");
    let deadline = tokio::time::Instant::now() + crate::world::PATIENCE;
    // What the namespace says comes before the path of the call.
    while world.ask("/inject/enforced", &plain).await.1["response"]["patch"].is_string() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // One that is not known: the path of the call.
    let mut unknown = plain.clone();
    unknown["request"]["namespace"] = "new".into();
    assert!(world.ask("/inject/enforced", &unknown).await.1["response"]["patch"].is_string());
    assert_eq!(
        world
            .count("outrider_webhook_unknown_namespaces_total")
            .await,
        1
    );
    world.end().await;
}

#[tokio::test]
async fn what_is_no_question_is_refused_and_the_connection_goes_on() {
    let world = World::own(Terms::default()).await;
    let mut connection = Connection::open(world.address, &world.bundle())
        .await
        .unwrap();
    let good = review(&pod(json!({ "name": "app" })));
    let with = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        bad.to_string()
    };
    let nested = "[".repeat(100_000);
    let bodies = [
        String::new(),
        "{}".to_owned(),
        "[1,2".to_owned(),
        nested.clone(),
        format!(r#"{{"request":{{"uid":"1","object":{nested}"#),
        with("/apiVersion", "admission.k8s.io/v1beta1".into()),
        with("/kind", "Pod".into()),
        with("/request", Value::Null),
        with("/request/uid", "".into()),
        with("/request/uid", "u".repeat(200).into()),
        with("/request/operation", 7.into()),
    ];
    for body in bodies {
        let (status, text) = connection.post("/inject", body.into()).await.unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    }
    for (method, path, expected) in [
        (Method::GET, "/inject", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/", StatusCode::NOT_FOUND),
        (Method::POST, "/inject/sometimes", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(
            connection.send(method, path, Bytes::new()).await.unwrap().0,
            expected,
            "{path}"
        );
    }
    // Objects that are no pods, or none at all, pass or are refused; nothing breaks.
    for object in [Value::Null, 7.into(), json!([]), json!({ "spec": [] })] {
        let body = with("/request/object", object);
        let (status, answer) = connection
            .post("/inject/enforced", body.into())
            .await
            .unwrap();
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &false.into()));
    }
    let other = with("/request/resource/resource", "services".into());
    let (_, answer) = connection
        .post("/inject/enforced", other.into())
        .await
        .unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    let (status, _) = connection
        .post("/inject/enforced", good.to_string().into())
        .await
        .unwrap();
    assert_eq!(status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn a_question_that_is_too_large_or_never_ends_holds_up_nobody() {
    let world = World::own(Terms::default()).await;
    let mut connection = Connection::open(world.address, &world.bundle())
        .await
        .unwrap();
    let large = Bytes::from(vec![b' '; MAX_BODY + 1]);
    // It is refused by its length; whether all of it is still taken is no matter.
    if let Ok((status, _)) = connection.post("/inject", large).await {
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    // Four that promise much and send nothing.
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = tls(world.address, &world.bundle()).await.unwrap();
        let head =
            format!("POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY}\r\n\r\n[");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for stream in &mut slow {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
    assert_eq!(
        world
            .count("outrider_webhook_failures_total{reason=\"timed-out\"}")
            .await,
        4
    );
    assert_eq!(
        world
            .count("outrider_webhook_failures_total{reason=\"too-large\"}")
            .await,
        1
    );
    let (status, _) = world
        .ask("/inject", &review(&pod(json!({ "name": "app" }))))
        .await;
    assert_eq!(status, StatusCode::OK);
    world.end().await;
}

#[test]
fn operations_are_written_as_the_api_server_reads_them() {
    let patch =
        injected(&pod(json!({ "name": "app" })), &enforced(), &cluster(&Value::Null)).unwrap();
    let Operation { op, path, .. } = &patch.patch[0];
    let written = serde_json::to_value(&patch.patch[0]).unwrap();
    assert_eq!(
        (written["op"].as_str().unwrap(), written["path"].as_str().unwrap()),
        ("add", &**path)
    );
    assert_eq!(format!("{op:?}"), "Add");
}
