//! `verify` says ok where capture works, and names what doesn't where someone broke it.

use crate::outcomes::BACKENDS;
use crate::world::World;

const MODES: [&str; 2] = ["redirect", "tproxy"];

#[test]
fn proves_a_pod_without_a_proxy() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::without_listeners() else { return };
        for mode in MODES {
            let settings = [chosen, &["--mode", mode]].concat();
            world.init_ok(&[&["apply"], settings.as_slice()].concat());
            let found = world.init_ok(&[&["verify"], settings.as_slice()].concat());
            let holds = found.lines().filter(|line| line.starts_with("ok ")).count();
            assert_eq!(holds, 12, "{backend}, {mode}:\n{found}");
        }
    }
}

#[test]
fn proves_a_pod_with_a_proxy() {
    let Some(world) = World::new() else { return };
    for mode in MODES {
        world.init_ok(&["apply", "--mode", mode]);
        let found = world.init_ok(&["verify", "--mode", mode]);
        assert!(!found.contains("BROKEN"), "{mode}:\n{found}");
        assert!(found.matches("ok ").count() >= 10, "{mode}:\n{found}");
    }
}

#[test]
fn names_what_someone_broke() {
    let sabotage = [
        ("iptables", "OUTPUT", "IPv4 outbound"),
        ("ip6tables", "OUTPUT", "IPv6 outbound"),
        ("iptables", "PREROUTING", "IPv4 inbound"),
        ("ip6tables", "PREROUTING", "IPv6 inbound"),
    ];
    let Some(world) = World::without_listeners() else { return };
    world.init_ok(&["apply"]);
    for (tool, chain, broken) in sabotage {
        world
            .pod
            .output(tool, &["-t", "nat", "-I", chain, "-j", "ACCEPT"]);
        let output = world.init(&["verify"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{error}");
        assert!(error.contains(&format!("BROKEN    {broken}")), "{broken}:\n{error}");
        // Running again goes to the front, and says that this was a change.
        let report = world.init_ok(&["apply"]);
        assert!(!report.contains("unchanged"), "{report}");
        world.init_ok(&["verify"]);
    }
}
