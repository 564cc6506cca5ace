//! What a node really runs, and that it is said.

use outrider_wire::ext::{Refusal, Status};
use serde_json::json;

use crate::{events::Source, metrics::samples, proxy::Proxy, world::World};

const MODE: &str = "/v1/workloads/cache/mode";

/// A proxy's own word.
fn said(version: u64, refused: Option<&str>) -> Status {
    Status {
        version: "0.1.0".into(),
        mode: "protect".into(),
        policy: "rules".into(),
        policy_version: version,
        refused: refused.map(|reason| Refusal::new(reason, format!("{reason}\u{1b} it was"))),
        ..Status::default()
    }
}

#[tokio::test]
async fn a_refused_policy_is_said_everywhere_until_one_is_in_force() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let other = Proxy::start(&world.mailbox("shop"));
    other.says(&said(1, None));
    let bridge = world.start().await;
    for name in ["cache", "shop"] {
        bridge.proxy_is(name, "connected").await;
    }
    let mut source = Source::open(&world, "?kinds=policy", None).await;
    proxy.says(&said(4, Some("too-many")));
    let (status, reply) = bridge.ask("PUT", MODE, r#"{"mode":"protect"}"#).await;
    assert_eq!((status, &reply["pushed"], &reply["refused"]), (200, &json!(0), &json!(1)));
    assert_eq!(reply["pending"], 0, "it is known at once: {reply}");

    let event = source.next().await.unwrap();
    assert_eq!((event.kind.as_str(), &event.data["state"]), ("policy", &json!("refused")));
    let all = bridge.get("/v1/workloads").await;
    let cache = &all[0];
    let wanted = cache["generation"].as_u64().unwrap();
    assert_eq!(cache["refused"]["generation"], wanted);
    assert_eq!(cache["refused"]["reason"], "too-many");
    assert_eq!(event.data["generation"], wanted);
    assert_eq!(cache["running"]["version"], 4, "{cache}");
    assert!(cache["running"]["generation"].as_u64().unwrap() < wanted, "{cache}");
    let shop = &all[1];
    assert_eq!(shop["running"]["generation"], shop["generation"], "{shop}");
    assert!(shop.get("refused").is_none(), "{shop}");
    let status = bridge.get("/v1/status").await;
    assert_eq!(
        (&status["coverage"]["refusing"], &status["coverage"]["lagging"]),
        (&json!(1), &json!(0))
    );
    let text = status["policy_refused"][0].as_str().unwrap();
    assert!(text.starts_with(&format!("default/cache: generation {wanted}: too-many: ")), "{text}");
    let refusing = "outrider_bridge_policy_refusing_proxies";
    assert_eq!(samples(&bridge).await[refusing], 1.0);

    // A bridge that comes anew hears the same, and does not know what is in force.
    bridge.stop().await;
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let all = bridge.get("/v1/workloads").await;
    assert_eq!(
        (&all[0]["running"]["generation"], &all[0]["refused"]["reason"]),
        (&json!(0), &json!("too-many"))
    );

    let mut source = Source::open(&world, "?kinds=policy", None).await;
    proxy.says(&said(5, None));
    let (_, reply) = bridge.ask("PUT", MODE, r#"{"mode":"monitor"}"#).await;
    assert_eq!((&reply["pushed"], &reply["refused"]), (&json!(1), &json!(0)));
    assert_eq!(source.next().await.unwrap().data["state"], "in-force");
    let cache = &bridge.get("/v1/workloads").await[0];
    assert_eq!(cache["running"]["generation"], cache["generation"], "{cache}");
    assert_eq!(cache["running"]["version"], 5);
    assert!(cache.get("refused").is_none(), "{cache}");
    assert_eq!(bridge.get("/v1/status").await["policy_refused"], json!([]));
    bridge.stop().await;
}
