//! The world itself, without the product: pods reach each other, and nothing is left behind.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrider_tests::{
    World,
    exchange::{End, exchange},
    require_netns, until,
    world::sweep::STATE,
};

/// How long killed things may take to go.
const GONE: Duration = Duration::from_secs(30);

#[test]
fn pods_reach_real_servers_over_both_families() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
    web.serve_nginx()?;
    web.serve_redis()?;
    for v6 in [false, true] {
        let (http, https) = (web.at(v6, 80), web.at(v6, 443));
        assert_eq!(shop.fetch(&format!("http://{http}/"))?, "hello from web\n");
        assert_eq!(shop.fetch(&format!("https://{https}/1k"))?.len(), 1024);
        assert_eq!(shop.redis_cli(web.at(v6, 6379), &["ping"])?.trim(), "PONG");
        let closed = exchange(&shop.netns, web.at(v6, 81), b"", GONE)?;
        assert_eq!(closed.end, End::Refused);
    }
    Ok(())
}

#[test]
fn a_dropped_world_leaves_nothing_behind() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let mut web = world.pod("web")?;
    web.serve_redis()?;
    let (prefix, dir) = (world.prefix().to_owned(), world.dir().to_owned());
    // Also what was started behind the world's back.
    let mut stray = web.netns.command("sleep").arg("600").spawn()?;
    drop(web);
    drop(world);
    stray.wait()?;
    ensure!(!dir.exists() && namespaces(&prefix).is_empty());
    Ok(())
}

#[test]
fn the_next_world_removes_what_a_killed_process_left() -> Result<()> {
    require_netns!();
    // This test plays both parts: as the child it makes a world and waits to be killed.
    if std::env::var_os("OUTRIDER_TEST_CHILD").is_some() {
        let mut world = World::new()?;
        let mut pod = world.pod("web")?;
        pod.serve_redis()?;
        fs::write(world.dir().join("ready"), "")?;
        std::thread::sleep(Duration::from_secs(600));
        return Ok(());
    }
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let (prefix, mut child) = child("the_next_world_removes_what_a_killed_process_left")?;
        kill(Pid::from_raw(child.id().try_into()?), signal)?;
        child.wait()?;
        if signal == Signal::SIGKILL {
            ensure!(!namespaces(&prefix).is_empty(), "nothing was left to be removed");
            drop(World::new()?);
        }
        ensure!(namespaces(&prefix).is_empty(), "{signal}: {:?}", namespaces(&prefix));
        ensure!(!Path::new(STATE).join(&prefix).exists(), "{signal}");
    }
    Ok(())
}

/// Runs one test of this file as a child, and waits until its world stands.
fn child(test: &str) -> Result<(String, std::process::Child)> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--exact", test])
        .env("OUTRIDER_TEST_CHILD", "1")
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let prefix = format!("or{}x0", child.id());
    let ready = Path::new(STATE).join(&prefix).join("ready");
    until("the child's world", GONE, || Ok(fs::metadata(&ready).map(drop)?))?;
    Ok((prefix, child))
}

fn namespaces(prefix: &str) -> Vec<String> {
    let names = fs::read_dir("/run/netns").map(|entries| {
        entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    });
    let mut names: Vec<String> = names.unwrap_or_default();
    names.retain(|name| name.starts_with(&format!("{prefix}-")));
    names
}
