//! Who may ask over TCP, who may change something, and what the others are told.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tokio::net::TcpStream;

use crate::world::{Running, World, exchange};

const PROTECT: &str = r#"{"mode":"protect"}"#;
const MODE: &str = "/v1/workloads/cache/mode";
/// SHA-256 of `look`, `change` and `late`.
const LOOK: &str = "3c01eba119e00d79c82b6f65d70bc5f1044d568618bf41377e6d1432023fc2b8";
const CHANGE: &str = "12ea12eace7d655f471ce55e34f89b1b77a3d9d05a445ca82877dd2235beaa51";
const LATE: &str = "089001a35679a33ef3db0ca350db9b9a2f0136e0e327577b04b3b98127470961";

fn write_tokens(world: &World, text: &str) -> String {
    let path = world.path().join("tokens");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

fn world_with_tokens() -> World {
    let mut world = World::new();
    world.pod("cache", 2);
    let path = write_tokens(&world, &format!("grafana read {LOOK}\nops write {CHANGE}\n"));
    world.set("OUTRIDER_BRIDGE_TOKENS", path);
    world
}

/// Asks over TCP; `token` is empty for none.
async fn ask(bridge: &Running, method: &str, path: &str, host: &str, token: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.api.port()))
        .await
        .unwrap();
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("host", host)];
    if !token.is_empty() {
        headers.push(("authorization", &bearer));
    }
    let (head, body) = exchange(&mut stream, method, path, &headers, PROTECT).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(status == 401, head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
    (status, body)
}

#[tokio::test]
async fn a_change_over_loopback_needs_a_token_and_the_right_host() {
    let world = world_with_tokens();
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    for (host, token, expected, said) in [
        ("127.0.0.1", "", 401, "OUTRIDER_TOKEN"),
        ("127.0.0.1", "guess", 401, "not known"),
        ("127.0.0.1", "look", 403, "role `write`"),
        ("evil.example", "change", 403, "Host must name"),
        ("localhost:15180", "change", 200, ""),
    ] {
        let (status, body) = ask(&bridge, "PUT", MODE, host, token).await;
        assert_eq!(status, expected, "{host} {token}: {body}");
        assert!(body["error"].as_str().unwrap_or_default().contains(said), "{body}");
    }
    assert_eq!(
        ask(&bridge, "GET", "/v1/status", "evil.example", "")
            .await
            .0,
        200
    );
    assert_eq!(
        ask(&bridge, "GET", "/v1/status", "localhost", "guess")
            .await
            .0,
        401
    );
    assert_eq!(bridge.ask("PUT", MODE, PROTECT).await.0, 200, "the socket's mode says who may");
    bridge.stop().await;
}

#[tokio::test]
async fn without_a_token_file_nothing_can_be_changed_over_tcp() {
    let world = World::new();
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    for token in ["", "change"] {
        assert_eq!(ask(&bridge, "PUT", MODE, "localhost", token).await.0, 401);
    }
    bridge.stop().await;
}

#[tokio::test]
async fn off_loopback_looking_needs_a_token_too() {
    let mut world = world_with_tokens();
    world.set("OUTRIDER_BRIDGE_API", "0.0.0.0:0");
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    for (method, path, token, expected) in [
        ("GET", "/v1/status", "", 401),
        ("GET", "/v1/nothing", "", 401),
        ("GET", "/v1/status", "look", 200),
        ("PUT", MODE, "look", 403),
        ("PUT", MODE, "change", 200),
    ] {
        let (status, body) = ask(&bridge, method, path, "bridge.example:15180", token).await;
        assert_eq!(status, expected, "{method} {path} {token}: {body}");
    }
    bridge.stop().await;
}

#[tokio::test]
async fn a_new_token_is_taken_and_an_old_one_forgotten_while_the_bridge_runs() {
    let world = world_with_tokens();
    let bridge = world.start().await;
    assert_eq!(
        ask(&bridge, "GET", "/v1/status", "localhost", "late")
            .await
            .0,
        401
    );
    write_tokens(&world, &format!("late read {LATE}\n"));
    let changed = async {
        while ask(&bridge, "GET", "/v1/status", "localhost", "late")
            .await
            .0
            != 200
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed)
        .await
        .unwrap();
    assert_eq!(
        ask(&bridge, "GET", "/v1/status", "localhost", "look")
            .await
            .0,
        401
    );
    bridge.stop().await;
}
