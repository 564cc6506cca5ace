//! Bad input: malformed pushes change nothing, and flows to nowhere or to ourselves end at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_model::names;
use outrider_tests::{
    Scene,
    ctrl::Ctrl,
    exchange::{End, exchange},
    require_netns, until,
};

/// What ends at once ends within this time.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_malformed_push_changes_nothing_and_is_reported() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let cache = scene.cache.at(false, 6379);
        scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        scene.node.set_mode("cache", "protect")?;
        let mac = &scene.cache.addresses.mac;
        let open = r#""defact":0,"dir":3,"rules":null"#;
        let pushes = [
            String::new(),
            "no json".to_owned(),
            "{".repeat(4000),
            r#"{"ctrl_cfg_policy":"#.to_owned(),
            r#"{"ctrl_cfg_policy":7}"#.to_owned(),
            r#"{"ctrl_cfg_policy":{}}"#.to_owned(),
            // An open policy, but cut off, for nobody, for what is no text, with an action that does not
            // exist, as a middle without a start.
            format!(r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,{open},"mac":["{mac}"]}}"#),
            format!(r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,{open},"mac":[]}}}}"#),
            format!(r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,{open},"mac":[7]}}}}"#),
            format!(
                r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,"defact":99,"dir":3,"mac":["{mac}"],"rules":null}}}}"#
            ),
            format!(r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":2,{open},"mac":["{mac}"]}}}}"#),
        ];
        let ctrl = Ctrl::connect(&scene.cache.mailbox)?;
        let before = errors(scene)?;
        for (number, push) in (1..).zip(&pushes) {
            ctrl.send(push.as_bytes())?;
            ctrl.keep_alive(number)?;
            let seen = exchange(&scene.intruder.netns, cache, b"PING\r\n", AT_ONCE)?;
            ensure!(matches!(seen.end, End::Reset | End::Refused), "after {push:?}: {seen:?}");
            ensure!(scene.shop.redis_cli(cache, &["ping"])?.trim() == "PONG", "after {push:?}");
        }
        until("the errors to be counted", Duration::from_secs(5), || {
            let counted = errors(scene)? - before;
            let expected = pushes.len() as f64;
            ensure!(counted >= expected, "{counted} errors counted, {expected} were sent");
            Ok(())
        })
    })
}

/// Requests that cache's proxy could not take.
fn errors(scene: &Scene) -> Result<f64> {
    let metrics = scene.cache.metrics()?;
    let families = ["outrider_ctrl_errors_total", "outrider_policy_refused_total"];
    Ok(families.iter().map(|family| metrics.sum(family, &[])).sum())
}

#[test]
fn a_flow_to_a_closed_port_ends_at_once() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        for v6 in [false, true] {
            let seen = exchange(&scene.shop.netns, scene.web.at(v6, 81), b"hello", AT_ONCE * 2)?;
            ensure!(matches!(seen.end, End::Reset | End::Refused), "v6 {v6}: {seen:?}");
            ensure!(seen.took < AT_ONCE, "{seen:?}");
        }
        Ok(())
    })
}

#[test]
fn flows_to_our_own_ports_end_at_once_and_loop_nowhere() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let closed =
            [names::INBOUND_PORT, names::OUTBOUND_PORT, names::ADMIN_PORT, names::DNS_PORT];
        for v6 in [false, true] {
            for port in closed {
                // From a peer, through both proxies; and from the pod itself, where loopback is free.
                for pod in [&scene.shop, &scene.web] {
                    let seen = exchange(
                        &pod.netns,
                        scene.web.at(v6, port),
                        b"GET / HTTP/1.0\r\n\r\n",
                        AT_ONCE * 2,
                    )?;
                    let what = format!("{} to port {port}, v6 {v6}: {seen:?}", pod.name);
                    ensure!(matches!(seen.end, End::Reset | End::Refused), "{what}");
                    ensure!(seen.took < AT_ONCE && seen.received.is_empty(), "{what}");
                }
            }
        }
        quiet(scene)
    })
}

#[test]
fn a_pod_that_calls_itself_gets_through_and_loops_nowhere() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        for v6 in [false, true] {
            let own = scene
                .web
                .fetch(&format!("http://{}/", scene.web.at(v6, 80)))?;
            ensure!(own == "hello from web\n", "{own}");
            let loopback = if v6 { "[::1]" } else { "127.0.0.1" };
            scene.web.fetch(&format!("http://{loopback}/"))?;
        }
        quiet(scene)
    })
}

/// No flow lives on in any proxy, and none has multiplied.
fn quiet(scene: &Scene) -> Result<()> {
    until("every flow to end", Duration::from_secs(5), || {
        for pod in scene.pods() {
            let metrics = pod.metrics()?;
            let open = metrics.sum("outrider_flows_open", &[]);
            let opened = metrics.sum("outrider_flows_opened_total", &[]);
            ensure!(open == 0.0 && opened < 50.0, "{}: {open} open of {opened}", pod.name);
        }
        Ok(())
    })
}
