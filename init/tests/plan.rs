//! `plan` prints what apply does: reviewed text for a matrix of settings, and properties that hold for all.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outrider_init::plan::{Chain, Hook, Match, Plan, Protocol, Rule, Target};
use outrider_init::render;
use outrider_init::settings::{Backend, Mode, Ports, Queue, RawSettings, Settings};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// Settings whose plan is reviewed, for both backends.
const MATRIX: [(&str, &[&str]); 8] = [
    ("default", &[]),
    ("tproxy", &["--mode", "tproxy"]),
    ("guard-off", &["--guard", "off", "--drop-invalid", "false"]),
    ("guard-all-dns", &["--guard", "all", "--dns", "10.96.0.10,fd00::a"]),
    (
        "exclusions",
        &[
            "--exclude-inbound-ports",
            "22,9000-9010",
            "--exclude-outbound-ports",
            "3306",
            "--exclude-outbound-cidrs",
            "10.8.0.0/16,fd08::/16",
            "--exclude-interfaces",
            "net1",
            "--exclude-groups",
            "2000",
        ],
    ),
    (
        "lists",
        &[
            "--inbound-ports",
            "80,443,8000-8100",
            "--outbound-ports",
            "80,443",
            "--outbound-cidrs",
            "10.0.0.0/8,fd00::/8",
            "--groups",
            "1000,1001",
            "--virtual-interfaces",
            "vnet0",
        ],
    ),
    (
        "secret-mark",
        &["--secret-mark", "0x5ec4e7", "--proxy-uid", "1771,1772", "--proxy-gid", "1773"],
    ),
    (
        "queue",
        &[
            "--queue",
            "closed",
            "--guard",
            "all",
            "--dns",
            "all",
            "--exclude-interfaces",
            "net1",
            "--secret-mark",
            "0x5ec4e7",
        ],
    ),
];

fn init(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider-init"));
    command.args(arguments).output().expect("outrider-init")
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/plan")
        .join(name)
}

#[test]
fn plans_are_the_reviewed_text() {
    let mut differ = Vec::new();
    for (name, arguments) in MATRIX {
        for backend in ["iptables", "nft"] {
            let output = init(&[&["plan", "--backend", backend], arguments].concat());
            assert!(output.status.success(), "{name}: {output:?}");
            let text = String::from_utf8(output.stdout).expect("text");
            let path = golden(&format!("{name}.{backend}.txt"));
            if std::env::var_os("OUTRIDER_BLESS").is_some() {
                std::fs::write(&path, &text).expect("write the golden file");
            }
            if std::fs::read_to_string(&path).expect("a golden file") != text {
                differ.push(path);
            }
        }
    }
    assert!(differ.is_empty(), "changed; look at them, then OUTRIDER_BLESS=1: {differ:?}");
}

#[test]
fn reads_the_environment_and_lets_flags_win() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrider-init"));
        command
            .env("OUTRIDER_INIT_OUTBOUND_PORT", "4001")
            .args(arguments)
            .output()
            .expect("run")
    };
    let text = String::from_utf8(run(&["plan"]).stdout).expect("text");
    assert!(text.contains("--to-ports 4001"), "{text}");
    let text = String::from_utf8(run(&["plan", "--outbound-port", "4002"]).stdout).expect("text");
    assert!(text.contains("--to-ports 4002") && !text.contains("4001"), "{text}");
}

#[test]
fn wrong_settings_are_told_all_at_once_with_exit_code_2() {
    let output = init(&["plan", "--mode", "both", "--mark", "none", "--inbound-ports", "http"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).expect("text");
    for setting in ["--mode", "--mark", "--inbound-ports", "OUTRIDER_INIT_MARK"] {
        assert!(error.contains(setting), "{setting} in {error}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn help_teaches_every_setting_and_exit_code() {
    let text = String::from_utf8(init(&["apply", "--help"]).stdout).expect("text");
    for option in outrider_init::settings::OPTIONS {
        assert!(text.contains(&format!("--{}", option.name)), "{}", option.name);
        assert!(text.contains(option.variable), "{}", option.variable);
    }
    assert!(text.contains("Exit codes:"));
    assert_eq!(init(&["apply", "--no-such-flag"]).status.code(), Some(2));
}

/// Texts for list settings, mostly usable.
fn some_settings() -> impl Strategy<Value = Settings> {
    let mode = prop_oneof![Just("redirect"), Just("tproxy")];
    let guard = prop_oneof![Just("off"), Just("tcp"), Just("all")];
    let dns = prop_oneof![Just("off"), Just("all"), Just("10.0.0.1,fd00::1")];
    let ports = || prop_oneof![Just("*"), Just("none"), Just("80"), Just("1-5,7,9-11")];
    let cidrs = || prop_oneof![Just("*"), Just("10.0.0.0/8"), Just("fd00::/8,192.0.2.1")];
    let excluded =
        || prop_oneof![Just(""), Just("22"), Just("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16")];
    let names = || prop_oneof![Just(""), Just("net1"), Just("net1,net2")];
    let groups = prop_oneof![Just("*"), Just("1000"), Just("1000,1001")];
    let queue = prop_oneof![Just("off"), Just("open"), Just("closed")];
    let head = (mode, guard, dns, queue, ports(), ports(), cidrs());
    (head, excluded(), excluded(), names(), names(), groups, any::<bool>()).prop_map(
        |(
            (mode, guard, dns, queue, inbound, outbound, cidrs),
            not_in,
            not_out,
            skip,
            vms,
            groups,
            drop,
        )| {
            let values = [
                ("mode", mode),
                ("guard", guard),
                ("dns", dns),
                ("queue", queue),
                ("inbound-ports", inbound),
                ("outbound-ports", outbound),
                ("outbound-cidrs", cidrs),
                ("exclude-inbound-ports", not_in),
                ("exclude-outbound-ports", not_out),
                ("exclude-interfaces", skip),
                ("virtual-interfaces", vms),
                ("groups", groups),
                ("drop-invalid", if drop { "true" } else { "false" }),
            ];
            let values = values
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec();
            RawSettings { values }.parse().expect("usable")
        },
    )
}

fn rules(plan: &Plan) -> impl Iterator<Item = (&Chain, &Rule)> {
    plan.chains
        .iter()
        .flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
}

proptest! {
    #[test]
    fn one_plan_comes_of_one_setting(settings in some_settings()) {
        prop_assert_eq!(Plan::new(&settings), Plan::new(&settings));
    }

    #[test]
    fn jumps_go_to_chains_that_are_there(settings in some_settings()) {
        let plan = Plan::new(&settings);
        for (chain, rule) in rules(&plan) {
            if let Target::Jump(to) = rule.then {
                let target = plan.chains.iter().find(|other| other.name == to);
                prop_assert!(target.is_some_and(|other| other.table == chain.table), "{}", to);
            }
        }
    }

    #[test]
    fn no_rule_is_out_of_reach(settings in some_settings()) {
        for chain in Plan::new(&settings).chains {
            for (at, rule) in chain.rules.iter().enumerate() {
                prop_assert!(chain.rules[..at].iter().all(|earlier| !earlier.hides(rule)));
            }
        }
    }

    #[test]
    fn capture_never_takes_the_proxy_upstream(settings in some_settings()) {
        let plan = Plan::new(&settings);
        let out = plan.chains.iter().find(|chain| chain.name == "OUTRIDER_OUT").expect("always");
        let exit = out.rules.iter().position(|rule| rule.when == [Match::Uid(1771)]).expect("always");
        let to_outbound = Target::Redirect(settings.outbound_port);
        prop_assert!(out.rules[..exit].iter().all(|rule| rule.then != to_outbound));
    }

    #[test]
    fn only_the_health_port_is_exempt_unless_asked(mut settings in some_settings()) {
        settings.exclude_inbound_ports.clear();
        settings.virtual_interfaces.clear();
        settings.inbound_ports = Ports::All;
        let health = Match::DestinationPorts(vec![settings.health_port.into()]);
        for name in ["OUTRIDER_IN", "OUTRIDER_TPROXY"] {
            let plan = Plan::new(&settings);
            for (_, rule) in rules(&plan).filter(|(chain, _)| chain.name == name) {
                let ports = rule.when.iter().find(|one| matches!(one, Match::DestinationPorts(_)));
                if rule.then == Target::Return {
                    prop_assert!(ports.is_none_or(|ports| *ports == health));
                }
            }
        }
    }

    #[test]
    fn every_rule_of_both_families_is_rendered_once_a_family(settings in some_settings()) {
        let plan = Plan::new(&settings);
        let text = render::text(&plan, Backend::Iptables);
        let expected: usize = rules(&plan).map(|(_, rule)| if rule.family().is_none() { 2 } else { 1 }).sum();
        prop_assert_eq!(text.lines().filter(|line| line.starts_with("-A ")).count(), expected);
    }

    #[test]
    fn what_is_queued_is_not_tcp_nor_loopback_nor_the_proxys(settings in some_settings()) {
        let plan = Plan::new(&settings);
        let queued = rules(&plan).filter(|(_, rule)| matches!(rule.then, Target::Queue { .. }));
        let mut count = 0;
        for (chain, queue) in queued {
            count += 1;
            prop_assert_eq!(chain.rules.last(), Some(queue), "everything that is left");
            let returns = |when: &[Match]| {
                chain.rules.iter().any(|rule| rule.when == when && rule.then == Target::Return)
            };
            prop_assert!(returns(&[Match::Protocol(Protocol::Tcp)]));
            match chain.hook {
                Some(Hook::Output) => {
                    prop_assert!(returns(&[Match::OutInterface("lo".to_owned())]));
                    prop_assert!(returns(&[Match::Uid(1771)]));
                }
                hook => {
                    prop_assert_eq!(hook, Some(Hook::Input));
                    prop_assert!(returns(&[Match::InInterface("lo".to_owned())]));
                }
            }
            let open = settings.queue == Queue::Open;
            prop_assert_eq!(&queue.then, &Target::Queue { number: 171, open });
        }
        prop_assert_eq!(count, if settings.queue == Queue::Off { 0 } else { 2 });
    }

    #[test]
    fn the_policy_route_belongs_to_tproxy(settings in some_settings()) {
        let plan = Plan::new(&settings);
        prop_assert_eq!(plan.route.is_some(), settings.mode == Mode::Tproxy);
    }
}
