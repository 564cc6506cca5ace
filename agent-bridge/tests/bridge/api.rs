//! The REST API's edges: what is refused and how, pages.

use outrider_wire::{Session, SessionFlags};
use tokio::net::UnixStream;

use crate::{
    proxy::Proxy,
    world::{World, exchange, mac},
};

const PROTECT: &str = r#"{"mode":"protect"}"#;

#[tokio::test]
async fn wrong_questions_get_an_error_that_says_what_to_do() {
    let world = World::new();
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    for (method, path, body, status) in [
        ("GET", "/v1/nothing", "", 404),
        ("DELETE", "/v1/rules", "", 405),
        ("PUT", "/v1/workloads/ghost/mode", PROTECT, 404),
        ("PUT", "/v1/workloads/cache/mode", r#"{"mode":"block"}"#, 400),
        ("GET", "/v1/explain?client=ghost&server=cache&port=1", "", 404),
        ("GET", "/v1/explain?client=10.0.0.9&server=cache&port=1&app=nope", "", 400),
        ("GET", "/v1/sessions?workload=ghost", "", 404),
        ("GET", "/v1/flows?worklod=cache", "", 400),
        ("GET", "/v1/flows?limit=0", "", 400),
        ("GET", "/v1/flows?cursor=7", "", 400),
        ("GET", "/v1/explain?client=cache", "", 400),
    ] {
        let (found, said) = bridge.ask(method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {said}");
        assert!(said["error"].is_string(), "{method} {path}: {said}");
    }
    let (_, said) = bridge
        .ask("PUT", "/v1/workloads/cache/mode", r#"{"mode":"block"}"#)
        .await;
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("discover, monitor, protect"),
        "{said}"
    );
    bridge.stop().await;
}

#[tokio::test]
async fn explains_by_rule_or_default() {
    let world = World::new();
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    bridge.ask("PUT", "/v1/workloads/cache/mode", PROTECT).await;
    let path = "/v1/explain?client=10.0.0.9&server=cache&port=6379&app=redis";
    let answer = bridge.get(path).await;
    assert_eq!(
        (&answer["verdict"], &answer["judged"][0]["rule"]),
        (&"deny".into(), &0.into()),
        "{answer}"
    );
    assert!(!answer["to_allow"].as_str().unwrap().is_empty(), "{answer}");
    bridge.stop().await;
}

#[tokio::test]
async fn open_flows_are_asked_of_the_proxies() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let session =
        |id| Session { id, epmac: mac(2), flags: SessionFlags::INGRESS, ..Session::default() };
    proxy.carries((0..100).map(session).collect());
    let sessions = bridge.get("/v1/sessions?workload=cache").await;
    assert_eq!(sessions.as_array().unwrap().len(), 100);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/sessions?workload=cache&limit=30{cursor}");
        let stream = UnixStream::connect(world.path().join("api.sock")).await;
        let (head, page) =
            exchange(&mut stream.unwrap(), "GET", &path, &[("host", "localhost")], "").await;
        paged.extend(page.as_array().unwrap().iter().cloned());
        let next = head
            .lines()
            .find_map(|line| line.strip_prefix("outrider-next-cursor: "));
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(&paged, sessions.as_array().unwrap());
    assert_eq!(
        (&sessions[0]["workload"], &sessions[0]["direction"]),
        (&"default/cache".into(), &"inbound".into())
    );
    bridge.stop().await;
}
