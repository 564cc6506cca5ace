//! Services of a real API server, as bridges are told of them.

use std::net::IpAddr;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{bridge::Bridge, world::World};

const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";

fn slice(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
    })
}

/// Of what a bridge is told of shop/db: the groups of its backends, with their ports.
fn told(bridge: &Bridge) -> Vec<(String, Vec<u32>)> {
    let backends = bridge
        .services
        .get("shop/db")
        .map(|one| &one.backends)
        .into_iter()
        .flatten();
    backends
        .map(|one| (one.group.clone(), one.targets.clone()))
        .collect()
}

fn is(groups: &[&str]) -> impl Fn(&Bridge) -> bool {
    let expected: Vec<_> = groups
        .iter()
        .map(|group| ((*group).to_owned(), vec![5432]))
        .collect();
    move |bridge| bridge.services.contains_key("shop/db") && told(bridge) == expected
}

pub(crate) async fn are_told_changed_and_forgotten(world: &World, bridges: &mut [Bridge; 2]) {
    let services = world.of::<Service>("shop");
    let slices = world.of::<EndpointSlice>("shop");
    let ports = json!([{"name": "sql", "port": 432, "targetPort": "sql"}]);
    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": ports}});
    let service = world.create(services.clone(), service).await;
    let headless =
        json!({"metadata": {"name": "bare"}, "spec": {"clusterIP": "None", "ports": ports}});
    world.create(services.clone(), headless).await;
    world.create(slices.clone(), slice("db-1", DB)).await;
    let address = service.spec.unwrap().cluster_ip.unwrap();
    let address: IpAddr = address.parse().unwrap();
    // Nothing has to do with it on n1 before it is asked for.
    let IpAddr::V4(v4) = address else { panic!("{address}") };
    bridges[0].ask(vec![v4.octets().to_vec()]).await;
    bridges[0].until("the Service", is(&["nv.db.shop"])).await;
    let known = &bridges[0].services["shop/db"];
    assert_eq!(known.addresses, [v4.octets().to_vec()]);
    assert_eq!((known.ports[0].proto, known.ports[0].port), (6, 432));
    assert!(known.backends[0].managed && known.backends[0].uids.len() == 1);
    let is_inside = |net: &String| net.parse::<ipnet::IpNet>().unwrap().contains(&address);
    assert!(
        bridges[0].internal.iter().any(is_inside),
        "it is no outside: {:?}",
        bridges[0].internal
    );
    // A second version of the pods, then a slice that somebody wrote by hand.
    world.create(slices.clone(), slice("db-2", WEB)).await;
    bridges[0]
        .until("both", is(&["nv.db.shop", "nv.web.shop"]))
        .await;
    move_to(&slices, "db-2", "192.0.2.66").await;
    for bridge in bridges.iter_mut() {
        // Everybody is told of an address that is no pod's.
        bridge
            .until("the foreign address", is(&["", "nv.db.shop"]))
            .await;
        assert!(!bridge.services.contains_key("shop/bare"), "it has no address");
    }
    for name in ["db-1", "db-2"] {
        slices.delete(name, &DeleteParams::default()).await.unwrap();
    }
    bridges[0].until("no backends", is(&[])).await;
    services
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    bridges[0]
        .until("the end", |bridge| !bridge.services.contains_key("shop/db"))
        .await;
}

async fn move_to(slices: &Api<EndpointSlice>, name: &str, address: &str) {
    let endpoints = json!([{"addresses": [address], "conditions": {"ready": true}}]);
    let patch = Patch::Merge(json!({"endpoints": endpoints}));
    slices
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
