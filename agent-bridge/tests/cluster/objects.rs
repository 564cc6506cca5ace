//! Our custom resources as the API server takes and refuses them, and as `kubectl get` shows them.

use kube::{
    Api, Client, Error, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use outrider_agent_bridge::cluster::objects::{
    self, ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, LearnedPolicy,
    NetworkRule, WorkloadGroup, WorkloadMode,
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::apiserver::ApiServer;

/// What `outrider policy export` makes of everything that can be learned.
const EXPORTED: &str = include_str!("../../api/tests/golden/outrider.yaml");

/// How long definitions may take until their kinds are served.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field_and_the_rest_is_taken() {
    let Some(server) = ApiServer::start().await else { return };
    let client = server.client().await;
    Box::pin(define(&client)).await;
    let mut wrong = Vec::new();
    for (kind, spec, field, words) in refused() {
        match create(&client, kind, &spec).await {
            Err(Error::Api(status)) => {
                let causes = status.details.as_ref().map(|details| &details.causes);
                let said = |cause: &kube::core::response::StatusCause| {
                    cause.field == field && cause.message.contains(words)
                };
                if !causes.is_some_and(|causes| causes.iter().any(said)) {
                    wrong.push(format!("{kind} {spec}: {causes:#?}, not {field}: {words}"));
                }
            }
            other => wrong.push(format!("{kind} {spec} is taken: {other:?}")),
        }
    }
    for (kind, spec) in taken() {
        if let Err(error) = create(&client, kind, &spec).await {
            wrong.push(format!("{kind} {spec}: {error}"));
        }
    }
    for object in outrider_api::code::read(EXPORTED).unwrap() {
        let (kind, spec) = (object["kind"].as_str().unwrap(), &object["spec"]);
        if let Err(error) = create(&client, kind, spec).await {
            wrong.push(format!("{object}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    columns(&server, &client).await;
}

/// What `kubectl get` shows: the columns that matter, filled by what is said of each object.
async fn columns(server: &ApiServer, client: &Client) {
    for (kind, spec, status) in shown() {
        let objects = api(client, kind);
        let name = "it";
        objects
            .create(&PostParams::default(), &object(kind, name, &spec))
            .await
            .unwrap();
        let status = Patch::Merge(json!({ "status": status }));
        objects
            .patch_status(name, &PatchParams::default(), &status)
            .await
            .unwrap();
    }
    let Some(mut kubectl) = server.kubectl() else { return eprintln!("SKIPPED: no kubectl") };
    let kinds = "owg,cowg,onr,ocnr,owm,ocwm,olp";
    let found = kubectl
        .args(["get", kinds, "--namespace=default"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&found.stdout);
    let without_age = |line: &str| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.pop();
        words.join(" ")
    };
    let shown: Vec<_> = text
        .lines()
        .map(without_age)
        .filter(|line| !line.is_empty())
        .collect();
    let expected = [
        "NAME MEMBERS ACCEPTED",
        "workloadgroup.outrider.dev/it 2 True",
        "NAME MEMBERS ACCEPTED",
        "clusterworkloadgroup.outrider.dev/it 2 True",
        "NAME PRIORITY ACCEPTED ENFORCED WORKLOADS",
        "networkrule.outrider.dev/it 70 True False 3",
        "NAME PRIORITY ACCEPTED ENFORCED WORKLOADS",
        "clusternetworkrule.outrider.dev/it 50 True False 3",
        "NAME MODE WORKLOADS ACCEPTED REASON",
        "workloadmode.outrider.dev/it Protect 4 True Accepted",
        "NAME MODE WORKLOADS ACCEPTED REASON",
        "clusterworkloadmode.outrider.dev/it Monitor 4 True Accepted",
        "NAME RULES EXCLUDED FROZEN SESSIONS",
        "learnedpolicy.outrider.dev/it 7 1 true 99",
    ];
    assert_eq!(shown, expected, "{}", String::from_utf8_lossy(&found.stderr));
}

/// Objects with the status that the controller would give them.
fn shown() -> Vec<(&'static str, Value, Value)> {
    let conditions = json!([
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
        {"type": "Enforced", "status": "False", "reason": "Pending", "message": "one has yet to say"},
    ]);
    let group = json!({"conditions": conditions, "members": 2});
    let workloads = json!({"concerned": 3, "enforced": 2, "refused": 0, "pending": 1});
    let rule = json!({"conditions": conditions, "workloads": workloads});
    let mode = json!({"conditions": conditions, "workloads": 4});
    let counts = json!({"counts": {"rules": 7, "excluded": 1, "sessions": 99}});
    let entry = json!([{"name": "all", "action": "Deny"}]);
    vec![
        ("WorkloadGroup", json!({"podSelector": {}}), group.clone()),
        ("ClusterWorkloadGroup", json!({"podSelector": {}}), group),
        ("NetworkRule", json!({"priority": 70, "ingress": entry}), rule.clone()),
        ("ClusterNetworkRule", json!({"ingress": entry}), rule),
        ("WorkloadMode", json!({"mode": "Protect"}), mode.clone()),
        ("ClusterWorkloadMode", json!({"mode": "Monitor"}), mode),
        ("LearnedPolicy", json!({"service": "it", "frozen": true}), counts),
    ]
}

async fn define(client: &Client) {
    let definitions = Api::all(client.clone());
    for definition in objects::definitions() {
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    let until = Instant::now() + PATIENCE;
    for (kind, spec) in taken() {
        while let Err(error) = create(client, kind, &spec).await {
            assert!(Instant::now() < until, "{kind}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn create(client: &Client, kind: &str, spec: &Value) -> Result<DynamicObject, Error> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    api(client, kind)
        .create(&dry_run, &object(kind, "it", spec))
        .await
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    DynamicObject::new(name, &resource(kind)).data(json!({ "spec": spec }))
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    match kind.starts_with("Cluster") {
        true => Api::all_with(client.clone(), &resource(kind)),
        false => Api::namespaced_with(client.clone(), "default", &resource(kind)),
    }
}

fn resource(kind: &str) -> ApiResource {
    fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    match kind {
        "WorkloadGroup" => of::<WorkloadGroup>(),
        "ClusterWorkloadGroup" => of::<ClusterWorkloadGroup>(),
        "NetworkRule" => of::<NetworkRule>(),
        "ClusterNetworkRule" => of::<ClusterNetworkRule>(),
        "WorkloadMode" => of::<WorkloadMode>(),
        "ClusterWorkloadMode" => of::<ClusterWorkloadMode>(),
        _ => of::<LearnedPolicy>(),
    }
}

/// A rule for everything that is said, and the peer besides.
fn with(part: &str, value: Value) -> Value {
    let mut entry = json!({"name": "r", "action": "Allow"});
    entry[part] = value;
    json!({ "ingress": [entry] })
}

fn peer(peer: impl Into<Value>) -> Value {
    with("peers", vec![peer.into()].into())
}

/// Kind, spec, the field that is named, words of the reason.
type Wrong = (&'static str, Value, &'static str, &'static str);

fn refused() -> Vec<Wrong> {
    [wrong_groups(), wrong_rules(), wrong_entries(), wrong_modes()].concat()
}

const RULE: &str = "NetworkRule";

fn entry(name: &str) -> Value {
    json!({"name": name, "action": "Allow"})
}

fn entries(count: usize) -> Value {
    (0..count)
        .map(|at| entry(&format!("r{at}")))
        .collect::<Vec<_>>()
        .into()
}

fn wrong_groups() -> Vec<Wrong> {
    let group = "WorkloadGroup";
    let selector = |operator: &str| json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": operator}]}});
    let expression = "spec.podSelector.matchExpressions[0]";
    let operator = "spec.podSelector.matchExpressions[0].operator";
    vec![
        (group, json!({}), "spec", "at least one of"),
        (group, json!({"cidrs": []}), "spec", "at least one of"),
        ("ClusterWorkloadGroup", json!({}), "spec", "at least one of"),
        (group, json!({"cidrs": ["10.0.0.0/33"]}), "spec.cidrs[0]", "an address or a network"),
        (group, json!({"cidrs": ["10.0.0.0/8", "10.0.0.0/8"]}), "spec.cidrs[1]", "Duplicate"),
        (group, json!({"names": ["a b"]}), "spec.names[0]", "a DNS name"),
        (group, json!({"names": ["*"]}), "spec.names[0]", "a DNS name"),
        (group, selector("In"), expression, "need values"),
        (group, selector("Is"), operator, "Unsupported value"),
    ]
}

fn wrong_rules() -> Vec<Wrong> {
    let cluster = "ClusterNetworkRule";
    let both = json!({"target": {"group": "g", "podSelector": {}}, "ingress": entries(1)});
    let alone = json!({"target": {"clusterGroup": "g", "podSelector": {}}, "ingress": entries(1)});
    let priority = |priority: i32| json!({"priority": priority, "ingress": entries(1)});
    vec![
        (RULE, json!({}), "spec", "at least one rule"),
        (RULE, priority(101), "spec.priority", "less than or equal to 100"),
        (RULE, priority(-1), "spec.priority", "greater than or equal to 0"),
        (RULE, both, "spec.target", "at most one of"),
        (RULE, json!({"ingress": entries(65)}), "spec.ingress", "Too many"),
        (RULE, json!({"ingress": [entry("a"), entry("a")]}), "spec.ingress[1]", "Duplicate"),
        (RULE, json!({"ingress": [entry("a")], "egress": [entry("a")]}), "spec", "must be unique"),
        (RULE, json!({"ingress": [entry("No_Name")]}), "spec.ingress[0].name", "lower case"),
        (RULE, json!({"ingress": [{"action": "Allow"}]}), "spec.ingress[0].name", "Required"),
        (cluster, peer(json!({"group": "g"})), "spec.ingress", "name a clusterGroup"),
        (cluster, alone, "spec.target", "stands alone"),
    ]
}

fn wrong_entries() -> Vec<Wrong> {
    const PEER: &str = "spec.ingress[0].peers[0]";
    const CIDR: &str = "spec.ingress[0].peers[0].cidr";
    const NAME: &str = "spec.ingress[0].peers[0].name";
    const EXTERNAL: &str = "spec.ingress[0].peers[0].external";
    const PORT: &str = "spec.ingress[0].ports[0]";
    const APP: &str = "spec.ingress[0].applications[0]";
    let mut all = vec![
        (RULE, with("action", "allow".into()), "spec.ingress[0].action", "Unsupported value"),
        (RULE, with("applications", json!(["Htttp"])), APP, "Unsupported value"),
        (RULE, peer(json!({})), PEER, "exactly one of"),
        (RULE, peer(json!({"group": "a", "clusterGroup": "b"})), PEER, "exactly one of"),
        (RULE, peer(json!({"podSelector": {}, "cidr": "10.0.0.0/8"})), PEER, "exactly one of"),
        (RULE, peer(json!({"external": false})), EXTERNAL, "Unsupported value"),
        (RULE, peer(json!({"cidr": "10.0.0.256"})), CIDR, "an address or a network"),
        (RULE, peer(json!({"cidr": "fd00::/129"})), CIDR, "an address or a network"),
        (RULE, peer(json!({"name": "http://example.com"})), NAME, "a DNS name"),
        (RULE, with("ports", json!(["tcp/90-80"])), PORT, "must not be above"),
    ];
    for port in ["80", "tcp/", "tcp/65536", "http", "icmp/8", "tcp/1-"] {
        all.push((RULE, with("ports", json!([port])), PORT, "must be 'any'"));
    }
    all
}

fn wrong_modes() -> Vec<Wrong> {
    vec![
        ("WorkloadMode", json!({"mode": "protect"}), "spec.mode", "Unsupported value"),
        ("WorkloadMode", json!({"podSelector": {}}), "spec.mode", "Required"),
        ("ClusterWorkloadMode", json!({"mode": "Off"}), "spec.mode", "Unsupported value"),
        ("LearnedPolicy", json!({"excluded": [1, 1]}), "spec.excluded[1]", "Duplicate"),
    ]
}

/// Kind and spec.
fn taken() -> Vec<(&'static str, Value)> {
    let any_peer = json!([
        {"group": "g"},
        {"clusterGroup": "h"},
        {"podSelector": {"matchLabels": {"app": "web"}}},
        {"podSelector": {}, "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}},
        {"cidr": "192.0.2.7"},
        {"cidr": "::ffff:10.0.0.1/128"},
        {"cidr": "0.0.0.0/0"},
        {"name": "*.Example.com"},
        {"name": "_sip._tcp.example.com"},
        {"external": true},
        {"nodes": true},
    ]);
    let any_port =
        json!(["any", "icmp", "tcp/any", "udp/53", "sctp/1-65535", "tcp/0", "tcp/80-80"]);
    let full = json!({
        "priority": 0,
        "target": {"podSelector": {"matchLabels": {"app": "web"}}},
        "ingress": [{"name": "a", "action": "Allow", "peers": any_peer, "applications": ["HTTP", "GRPC"], "ports": any_port}],
        "egress": [{"name": "b", "action": "Deny"}],
    });
    vec![
        ("WorkloadGroup", json!({"podSelector": {}})),
        (
            "WorkloadGroup",
            json!({"cidrs": ["10.0.0.0/8", "fd00::/8"], "names": ["api.example.com"]}),
        ),
        ("ClusterWorkloadGroup", json!({"namespaceSelector": {}})),
        ("NetworkRule", full),
        ("NetworkRule", with("ports", json!([]))),
        ("ClusterNetworkRule", peer(json!({"clusterGroup": "g"}))),
        (
            "ClusterNetworkRule",
            json!({"target": {"namespaceSelector": {}}, "egress": [{"name": "a", "action": "Deny", "peers": [{"cidr": "169.254.169.254"}]}]}),
        ),
        ("WorkloadMode", json!({"mode": "Protect"})),
        (
            "ClusterWorkloadMode",
            json!({"namespaceSelector": {}, "podSelector": {}, "mode": "Monitor"}),
        ),
        (
            "LearnedPolicy",
            json!({"service": "web", "excluded": [1_000_000], "rules": [{"id": 1_000_000, "direction": "Ingress", "peer": "external", "port": 80, "protocol": "tcp"}]}),
        ),
    ]
}
