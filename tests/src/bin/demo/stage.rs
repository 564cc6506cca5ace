//! The stage: a node, three pods that work together and one that should not.

use anyhow::Result;
use outrider_tests::{Scene, binaries};

use crate::narrate::Story;

/// Brings everything up, with nothing learned and nothing enforced.
pub(crate) fn build(story: &mut Story) -> Result<Scene> {
    story.section("A node with four pods, each a network namespace of its own, IPv4 and IPv6");
    let scene = Scene::build()?;
    for pod in scene.pods() {
        let addresses = &pod.addresses;
        story.say(format_args!("{:<9} {:<11} {}", pod.name, addresses.v4, addresses.v6));
    }
    story.say("in each: outrider-init put REDIRECT rules (both families, both directions),");
    story.say("outrider-proxy runs as uid 1771 without any capability");
    story.say("web runs nginx (HTTP, HTTPS), cache runs redis, shop calls both");
    story.say("on the node: outrider-agent-bridge, one mailbox directory a pod");
    story.shows("outrider workloads", &scene.node.cli(&["workloads"])?);
    Ok(scene)
}

/// What to try while it runs.
pub(crate) fn look_around(scene: &Scene, story: &mut Story) {
    story.section("It keeps running (KEEP=1): look around from another terminal, as root");
    let outrider = binaries::find("outrider").map(|path| path.display().to_string());
    let outrider = outrider.unwrap_or_else(|_| "outrider".to_owned());
    let on = |netns: &str, command: &str| format!("ip netns exec {netns} {command}");
    let node = scene.node.netns.name();
    for what in ["conversations", "rules", "violations", "threats", "flows", "status"] {
        story.say(on(node, &format!("{outrider} {what}")));
    }
    story.say(on(node, &format!("{outrider} mode set web protect")));
    let shop = scene.shop.netns.name();
    story.say(on(shop, &format!("curl http://{}/", scene.web.addresses.v4)));
    story.say(on(shop, &format!("redis-cli -h {} ping", scene.cache.addresses.v6)));
    let intruder = scene.intruder.netns.name();
    story.say(on(intruder, &format!("redis-cli -h {} ping", scene.cache.addresses.v4)));
    story.say(on(scene.web.netns.name(), "curl http://127.0.0.1:15120/metrics"));
    story.say(on(scene.web.netns.name(), "iptables-save -t nat"));
    story.say(format_args!("logs, mailboxes, store: {}", scene.world.dir().display()));
    story.say("Ctrl-C removes all of it");
}
