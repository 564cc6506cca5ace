//! Another implementation of gRPC, which made its code from our files, asks a live bridge.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use outrider_wire::request::Request;
use tokio::process::Command;

use crate::{grpc::sessions, proxy::Proxy, world::World};

/// Makes a missing Python an error.
const REQUIRE: &str = "OUTRIDER_REQUIRE_NETNS";

/// The Python that `tests/setup.sh` made, if it did.
pub(crate) fn python() -> Option<PathBuf> {
    let python = root().join("target/grpc-venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!required, "{REQUIRE}=1, but there is no {}: make setup", python.display());
    // Past the test harness, which shows the output of failed tests only.
    if let Ok(mut tty) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
        let _said = writeln!(tty, "SKIPPED: no Python with gRPC: make setup");
    }
    None
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn runs(python: &Path, arguments: &[&str]) {
    let output = Command::new(python)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// Has grpcio's generator make its code in that directory.
pub(crate) async fn generate(python: &Path, into: &Path) {
    let path = |path: &Path| path.display().to_string();
    let files = path(&root().join("agent-bridge/api/proto"));
    let generated = path(into);
    let (into, services) =
        (format!("--python_out={generated}"), format!("--grpc_python_out={generated}"));
    let make = ["-m", "grpc_tools.protoc", "-I", &files, &into, &services];
    let made = [&make[..], &["common.proto", "enforcer.proto", "controller.proto"]].concat();
    runs(python, &made).await;
}

#[tokio::test]
async fn a_client_of_another_make_gets_sensible_answers() {
    const EACH: u32 = 50_000;
    let Some(python) = python() else { return };
    let world = World::new();
    let proxies = [("a", 2), ("b", 3)].map(|(name, number)| {
        world.pod(name, number);
        (name, number, Proxy::start(&world.mailbox(name)))
    });
    let bridge = world.start().await;
    for (name, number, proxy) in &proxies {
        bridge.proxy_is(name, "connected").await;
        proxy.carries(sessions(*number, EACH));
        proxy.meters(*number);
    }
    let path = |path: &Path| path.display().to_string();
    let generated = path(world.path());
    generate(&python, world.path()).await;
    let script = path(&root().join("agent-bridge/tests/bridge/ask.py"));
    let socket = path(&world.path().join("grpc.sock"));
    runs(&python, &[&script, &generated, &socket, "b", &(2 * EACH).to_string()]).await;
    let cleared = |request: &Request| match request {
        Request::ClearSession(clear) => Some(clear.filter_id),
        _ => None,
    };
    let (.., proxy) = &proxies[1];
    assert_eq!(proxy.hears(cleared).await, 7);
    bridge.stop().await;
}
