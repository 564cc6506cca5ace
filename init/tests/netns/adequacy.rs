//! Every rule is needed: without it, some probe sees another outcome. A rule that nobody would miss is removed, or
//! the reviewed file says why it stays.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use outrider_init::apply::{self, netlink};
use outrider_init::plan::{Plan, Rule};
use outrider_init::settings::{Backend, RawSettings, Settings};

use crate::attacks::raw;
use crate::outcomes::whole_map;
use crate::queue;
use crate::settled;
use crate::world::addr::{POD, REMOTE};
use crate::world::probe::{self, Options};
use crate::world::queue::Reader;
use crate::world::{APP, PROXY, ROOT, World};

/// A plan without one of its rules.
struct Mutant {
    /// Which rule, for people.
    name: String,
    plan: Plan,
}

/// Every plan that lacks one rule of those that `simpler`, a plan with tests of its own, does not have.
fn mutants(plan: &Plan, simpler: Option<&Plan>, backend: Backend) -> Vec<Mutant> {
    let name = |place: &str, rule: &Rule| format!("{place}: {}: {:?}", rule.why, rule.when);
    let mut mutants = Vec::new();
    for (chain_at, chain) in plan.chains.iter().enumerate() {
        let known = simpler.iter().flat_map(|plan| &plan.chains);
        let known: Vec<_> = known.filter(|other| other.name == chain.name).collect();
        for (at, rule) in chain.rules.iter().enumerate() {
            if known.iter().any(|chain| chain.rules.contains(rule)) {
                continue;
            }
            let mut lacking = plan.clone();
            lacking.chains[chain_at].rules.remove(at);
            mutants.push(Mutant { name: name(chain.name, rule), plan: lacking });
        }
    }
    if backend == Backend::Nft {
        for (at, rule) in plan.egress.iter().enumerate() {
            if simpler.is_some_and(|plan| plan.egress.contains(rule)) {
                continue;
            }
            let mut lacking = plan.clone();
            lacking.egress.remove(at);
            mutants.push(Mutant { name: name("OUTRIDER_EGRESS", rule), plan: lacking });
        }
    }
    mutants
}

/// Times that a rule is taken away before nobody is said to miss it.
const ATTEMPTS: usize = 3;

/// What can be seen from outside of the rules, in parts; what most rules are for comes first.
type Part = fn(&World) -> String;

const PARTS: [Part; 2] = [whole_map, |world| {
    [0, 1]
        .map(|family| {
            questions(world, family)
                + &raw::outcomes(world, family)
                + &pings(world, family)
                + &strangers(world, family)
        })
        .concat()
}];

/// The workload and the proxy ask the same server from the same port, one after the other.
fn questions(world: &World, family: usize) -> String {
    let server = SocketAddr::new(REMOTE[family].parse().expect("address"), 53);
    let nobody = SocketAddr::new(server.ip(), 9);
    let refused = world
        .pod
        .run(PROXY, || probe::connect(nobody, Options::udp()));
    let mut text = format!("proxy asks {nobody}: {refused}\n");
    for (port, order) in [(5301, [APP, PROXY]), (5302, [PROXY, APP])] {
        for sender in order {
            let source = Options::udp_from(POD[family], port);
            let outcome = world
                .pod
                .run(sender, move || probe::connect(server, source));
            text += &format!("{} asks {server} from {port}: {outcome}\n", sender.name);
        }
    }
    text
}

/// Each asks for the other's link address by itself.
fn strangers(world: &World, family: usize) -> String {
    let mut text = String::new();
    for (from, sender, ip, port) in
        [(&world.pod, PROXY, REMOTE[family], 9000), (&world.peer, ROOT, POD[family], 8080)]
    {
        world.flush_neighbours();
        let to = SocketAddr::new(ip.parse().expect("address"), port);
        let outcome = from.run(sender, || probe::connect(to, Options::default()));
        text += &format!("{to}, for the first time: {outcome}\n");
    }
    text
}

/// What waits in the packet queue while everything is allowed: one packet of a flow, from either side, and none of what
/// is left alone.
fn queued(world: &World) -> String {
    let forget = || {
        world
            .pod
            .run(ROOT, || netlink::flush_conntrack(&mut Vec::new()))
    };
    forget().expect("flushed");
    let reader = Reader::start(&world.pod);
    let mut text = String::new();
    for family in [0, 1] {
        text += &questions(world, family);
        text += &pings(world, family);
        // Nobody waits for these; the exchanges behind them show that they are through.
        queue::without_a_flow(world, family);
        text += &queue::flows(world, family);
        text += &queue::forged(world, family);
        text += &format!("{} packets waited\n", reader.seen());
    }
    forget().expect("flushed");
    text
}

fn pings(world: &World, family: usize) -> String {
    let ping = |from: &crate::world::Namespace, to: &str| {
        let heard = from.exec("ping", &["-c", "1", "-W", "0.2", to]);
        format!("ping {to}: {}\n", heard.status.success())
    };
    ping(&world.pod, REMOTE[family]) + &ping(&world.peer, POD[family])
}

fn install(world: &World, plan: &Plan, settings: &Settings) {
    let (plan, settings) = (plan.clone(), settings.clone());
    let report = world.pod.run(ROOT, move || apply::apply(&plan, &settings));
    report.expect("applied");
    // A fresh start: neighbours have to be found under the new rules.
    world.forget_neighbours();
}

/// Rules that may go unnoticed, each with the reason.
fn justified() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adequacy/unnoticed.txt");
    let text = std::fs::read_to_string(path).expect("the reviewed file");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Settings by their names.
type Values = [(&'static str, &'static str)];

fn settings_of(values: &Values) -> Settings {
    let values = values
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    RawSettings { values }.parse().expect("usable")
}

/// Every rule of a plan.
fn check(values: &Values) {
    judge(&settings_of(values), None, &PARTS);
}

/// Every rule that settings add to those of simpler ones.
fn check_added(simpler: &Values, added: &Values, parts: &[Part]) {
    let plan = Plan::new(&settings_of(simpler));
    judge(&settings_of(&[simpler, added].concat()), Some(&plan), parts);
}

fn judge(settings: &Settings, simpler: Option<&Plan>, parts: &[Part]) {
    let Some(world) = World::with_squatter() else { return };
    // Someone else's rule that keeps address translation from what we capture.
    let notrack = format!(
        "table inet user {{ chain c {{ type filter hook prerouting priority -400; tcp sport {} notrack; }}; }}",
        raw::UNTRACKED
    );
    world.pod.output("nft", &[&notrack]);
    let plan = Plan::new(settings);
    install(&world, &plan, settings);
    let look = |part: &Part| settled(|| part(&world));
    let whole: Vec<String> = parts.iter().map(look).collect();
    let justified = justified();
    let mut unnoticed = BTreeSet::new();
    let mutants = mutants(&plan, simpler, settings.backend);
    let all = mutants.len();
    assert!(all > 0, "nothing to miss");
    for mutant in mutants {
        let misses = || {
            install(&world, &mutant.plan, settings);
            let mut both = parts.iter().zip(&whole);
            both.any(|(part, seen)| part(&world) != *seen)
        };
        // A neighbour may have made itself known meanwhile, and nobody misses the rule that lets it be asked.
        let attempts = if justified.contains(&mutant.name) { 1 } else { ATTEMPTS };
        if !(0..attempts).any(|_| misses()) {
            unnoticed.insert(mutant.name);
        }
    }
    eprintln!("{all} rules, {} unnoticed", unnoticed.len());
    let unknown: Vec<_> = unnoticed.difference(&justified).collect();
    assert!(unknown.is_empty(), "nobody misses these rules: {unknown:#?}");
}

#[test]
fn every_rule_of_redirect_is_missed() {
    check(&[("backend", "iptables")]);
}

#[test]
fn every_rule_of_redirect_by_nft_is_missed() {
    check(&[("backend", "nft")]);
}

#[test]
fn every_rule_of_tproxy_is_missed() {
    check(&[("backend", "iptables"), ("mode", "tproxy")]);
}

#[test]
fn every_rule_of_tproxy_by_nft_is_missed() {
    check(&[("backend", "nft"), ("mode", "tproxy")]);
}

const DNS_AND_GUARD: &Values = &[("dns", "all"), ("guard", "all")];

#[test]
fn every_rule_of_dns_and_the_guard_for_everything_is_missed() {
    check_added(&[("backend", "iptables")], DNS_AND_GUARD, &PARTS);
}

#[test]
fn every_rule_of_dns_and_the_guard_for_everything_by_nft_is_missed() {
    check_added(&[("backend", "nft")], DNS_AND_GUARD, &PARTS);
}

#[test]
fn every_rule_of_the_packet_queue_is_missed() {
    let parts = [queued, PARTS[0], PARTS[1]];
    let added = [("queue", "closed"), ("dns", "all"), ("exclude-interfaces", "net1")];
    check_added(&[("iptables-variant", "nft")], &added, &parts);
}

#[test]
fn every_exclusion_is_missed() {
    for mode in ["redirect", "tproxy"] {
        let added = [
            ("exclude-inbound-ports", "8081"),
            ("exclude-outbound-ports", "9001"),
            ("exclude-outbound-cidrs", "198.51.100.0/24,2001:db8:8::/48"),
            ("exclude-interfaces", "net1"),
            ("exclude-groups", "2000"),
        ];
        check_added(&[("backend", "nft"), ("mode", mode)], &added, &PARTS);
    }
}
