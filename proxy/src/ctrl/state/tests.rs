use std::{collections::BTreeSet, fs};

use outrider_model::PolicyAction;
use outrider_wire::chunk::split;

use super::*;
use crate::testing::{POD_MAC, golden};

const MAC: &str = "0a:58:0a:4d:01:05";
const OTHER: &str = "0a:58:0a:4d:02:05";

pub(super) fn state() -> State {
    State::new(&[POD_MAC], None)
}

/// Applies the commands of one datagram.
fn apply(state: &mut State, text: &str) -> Vec<Outcome> {
    let commands = Request::parse_datagram(text.as_bytes()).unwrap();
    commands
        .into_iter()
        .map(|command| state.apply(command.request.map_err(Ignored::Wire)?))
        .collect()
}

/// Applies one command that is expected to hold.
pub(super) fn done(state: &mut State, text: &str) -> Vec<Effect> {
    apply(state, text).pop().unwrap().unwrap()
}

pub(super) fn refused(state: &mut State, text: &str) -> &'static str {
    apply(state, text).pop().unwrap().unwrap_err().reason()
}

pub(super) fn add(state: &mut State, mac: &str) -> Vec<Effect> {
    done(state, &format!(r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{mac}","pips":null}}}}"#))
}

fn tap(state: &mut State, on: bool) -> Vec<Effect> {
    done(state, &format!(r#"{{"ctrl_cfg_mac":{{"macs":["{MAC}"],"tap":{on}}}}}"#))
}

fn policy_text(command: u32, flag: u32, action: u32, rules: &str) -> String {
    format!(
        r#"{{"ctrl_cfg_policy":{{"cmd":{command},"flag":{flag},"defact":{action},"dir":3,"mac":["{MAC}"],"rules":[{rules}]}}}}"#
    )
}

const RULE: &str = r#"{"id":7,"sip":"10.0.0.1","dip":"10.77.1.5","port":80,"portr":80,"proto":6,"action":2,"ingress":true}"#;

#[test]
fn before_anybody_manages_it_traffic_passes_unreported() {
    let state = state();
    let desired = state.desired();
    assert_eq!((desired.mode, desired.managed, state.reports()), (Mode::Discover, false, false));
    let spec = desired.spec().unwrap().unwrap();
    assert_eq!(spec.default_action, PolicyAction::Learn);
}

#[test]
fn a_default_mode_from_the_environment_governs_until_a_policy_comes() {
    let mut state = State::new(&[POD_MAC], Some(Mode::Protect));
    let desired = state.desired();
    assert_eq!((desired.mode, desired.managed, state.reports()), (Mode::Protect, true, true));
    assert_eq!(desired.spec().unwrap().unwrap().default_action, PolicyAction::Deny);
    add(&mut state, MAC);
    assert_eq!(state.desired().mode, Mode::Protect, "registered, but no policy yet");
    tap(&mut state, true);
    assert_eq!(state.desired().mode, Mode::Monitor, "the agent says: observe only");
    done(&mut state, &policy_text(1, 3, 1, RULE));
    assert_eq!(state.desired().mode, Mode::Discover);
}

#[test]
fn tap_flag_and_default_action_make_the_mode() {
    for (observe, action, mode) in [
        (true, 1, Mode::Discover),
        (true, 6, Mode::Monitor),
        (true, 7, Mode::Monitor),
        (false, 7, Mode::Protect),
        (false, 1, Mode::Protect),
    ] {
        let mut state = state();
        add(&mut state, MAC);
        tap(&mut state, observe);
        done(&mut state, &policy_text(1, 3, action, RULE));
        assert_eq!(state.desired().mode, mode, "tap {observe}, action {action}");
    }
}

#[test]
fn an_endpoint_starts_observed() {
    let mut state = state();
    assert_eq!(add(&mut state, MAC), [Effect::PolicyChanged]);
    assert!(state.reports());
    done(&mut state, &policy_text(1, 3, 7, RULE));
    assert_eq!(state.desired().mode, Mode::Monitor);
}

#[test]
fn other_workloads_are_kept_without_traffic() {
    let mut state = state();
    assert!(add(&mut state, OTHER).is_empty());
    assert!(!state.desired().managed);
    let stats = format!(r#"{{"ctrl_stats_macs":{{"macs":["{OTHER}"]}}}}"#);
    let known = Query::MacStats { known: true, ours: false };
    assert_eq!(done(&mut state, &stats), [Effect::Query(known)]);
    let none = Query::MacStats { known: false, ours: false };
    let stats = format!(r#"{{"ctrl_stats_macs":{{"macs":["{MAC}"]}}}}"#);
    assert_eq!(done(&mut state, &stats), [Effect::Query(none)]);
}

#[test]
fn a_policy_takes_effect_whole_at_its_last_chunk() {
    let mut state = state();
    add(&mut state, MAC);
    assert!(done(&mut state, &policy_text(1, 1, 7, RULE)).is_empty());
    assert!(done(&mut state, &policy_text(1, 0, 7, RULE)).is_empty());
    assert!(!state.has_policy());
    assert_eq!(done(&mut state, &policy_text(1, 2, 7, RULE)), [Effect::PolicyChanged]);
    let spec = state.desired().spec().unwrap().unwrap();
    assert_eq!((spec.rules.len(), spec.default_action), (3, PolicyAction::Deny));
}

#[test]
fn a_chunk_that_continues_nothing_changes_nothing() {
    let mut state = state();
    add(&mut state, MAC);
    assert_eq!(refused(&mut state, &policy_text(1, 2, 7, RULE)), "no-start");
    assert!(!state.has_policy());
}

#[test]
fn a_deleted_policy_leaves_everything_open() {
    let mut state = state();
    add(&mut state, MAC);
    done(&mut state, &policy_text(1, 3, 7, RULE));
    assert_eq!(done(&mut state, &policy_text(3, 3, 0, "")), [Effect::PolicyChanged]);
    assert!(state.desired().spec().unwrap().is_none());
    assert_eq!(refused(&mut state, &policy_text(9, 3, 0, "")), "policy-command");
}

#[test]
fn a_policy_for_an_unregistered_workload_is_not_stored() {
    let mut state = state();
    assert!(done(&mut state, &policy_text(1, 3, 7, RULE)).is_empty());
    add(&mut state, MAC);
    assert!(!state.has_policy());
}

#[test]
fn a_refused_policy_gives_way_to_the_last_good_one() {
    let mut state = state();
    add(&mut state, MAC);
    done(&mut state, &policy_text(1, 3, 6, RULE));
    let good = state.desired().law;
    state.accepted(&good);
    let swapped = RULE.replace("\"portr\":80", "\"portr\":79");
    done(&mut state, &policy_text(2, 3, 7, &swapped));
    let bad = state.desired();
    let spec = bad.spec().unwrap();
    assert!(outrider_policy::Snapshot::compile(spec.as_ref(), &bad.network).is_err());
    state.refused(&bad.law);
    let spec = state.desired().spec().unwrap().unwrap();
    assert_eq!((spec.default_action, spec.rules[0].ports), (PolicyAction::Violate, (80, 80)));
}

#[test]
fn a_renamed_endpoint_keeps_its_state() {
    let mut state = State::new(&[POD_MAC, OTHER.parse().unwrap()], None);
    add(&mut state, MAC);
    done(&mut state, &policy_text(1, 3, 6, RULE));
    let rename =
        format!(r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{OTHER}","oldmac":"{MAC}"}}}}"#);
    done(&mut state, &rename);
    assert!(state.has_policy());
    assert_eq!(state.epmac(), OTHER.parse().unwrap());
}

#[test]
fn an_endpoint_that_goes_leaves_a_last_report() {
    let mut state = state();
    add(&mut state, MAC);
    let gone = done(&mut state, &format!(r#"{{"ctrl_del_mac":{{"iface":"eth0","mac":"{MAC}"}}}}"#));
    assert_eq!(gone, [Effect::LastReport, Effect::PolicyChanged]);
    assert!(!state.reports());
    let again =
        done(&mut state, &format!(r#"{{"ctrl_del_mac":{{"iface":"eth0","mac":"{MAC}"}}}}"#));
    assert!(again.is_empty(), "unknown by now");
}

#[test]
fn a_port_pair_puts_into_quarantine_and_lifts_it() {
    let mut state = state();
    add(&mut state, MAC);
    let pair = |quar: &str| {
        format!(
            r#"{{"ctrl_add_port_pair":{{"vex_iface":"vex1","vin_iface":"vin1","epmac":"{MAC}"{quar}}}}}"#
        )
    };
    let both = [Effect::PolicyChanged, Effect::PortsChanged];
    assert_eq!(done(&mut state, &pair(r#","quar":true"#)), both);
    assert!(state.desired().quarantined);
    assert_eq!(done(&mut state, &pair("")), both);
    assert!(done(&mut state, &pair("")).is_empty(), "the same again");
    assert!(state.ports().next().is_none(), "its interfaces are not looked for");
    assert!(!state.desired().quarantined);
    done(&mut state, &pair(r#","quar":true"#));
    done(
        &mut state,
        r#"{"ctrl_del_port_pair":{"vex_iface":"vex1","vin_iface":"vin1","epmac":""}}"#,
    );
    assert!(!state.desired().quarantined);
}

#[test]
fn a_quarantine_of_another_workload_is_not_ours() {
    let mut state = state();
    let pair = format!(
        r#"{{"ctrl_add_port_pair":{{"vex_iface":"a","vin_iface":"b","epmac":"{OTHER}","quar":true}}}}"#
    );
    assert_eq!(done(&mut state, &pair), [Effect::PortsChanged]);
    assert!(!state.desired().quarantined);
}

#[test]
fn ports_of_the_pods_own_interfaces_are_not_opened() {
    let mut state = state();
    let port = |netns: &str, mac: &str| {
        format!(r#"{{"ctrl_add_tap_port":{{"netns":"{netns}","iface":"eth0","epmac":"{mac}"}}}}"#)
    };
    done(&mut state, &port("/proc/7/ns/net", MAC));
    assert_eq!(state.ports().count(), 0);
    done(&mut state, &port("/proc/8/ns/net", OTHER));
    done(&mut state, &port("/proc/9/ns/net", OTHER));
    assert!(done(&mut state, &port("/proc/9/ns/net", OTHER)).is_empty(), "the same again");
    assert_eq!(state.ports().count(), 2, "a port is its namespace and its interface");
    let other_mac = done(&mut state, &port("/proc/9/ns/net", "02:00:00:00:00:77"));
    assert_eq!(other_mac, [Effect::PortsChanged]);
    assert_eq!(state.ports().count(), 2, "again only the MAC");
    done(
        &mut state,
        r#"{"ctrl_del_tap_port":{"netns":"/proc/9/ns/net","iface":"eth0","epmac":""}}"#,
    );
    let left: Vec<_> = state.ports().map(|(port, _)| port).collect();
    let want = Port::Tap { netns: "/proc/8/ns/net".into(), iface: "eth0".into() };
    assert_eq!(left, [want]);
    assert!(!state.desired().managed, "another pod's ports make it none of ours");
}

#[test]
fn a_proxy_that_relays_for_no_pod_stands_for_the_one_behind_its_ports() {
    let mut state = State::new(&[POD_MAC], None).adopting();
    add(&mut state, OTHER);
    assert!(!state.desired().managed);
    let pair = |quar: bool| {
        format!(
            r#"{{"ctrl_add_port_pair":{{"vex_iface":"a","vin_iface":"b","epmac":"{OTHER}","quar":{quar}}}}}"#
        )
    };
    let both = [Effect::PolicyChanged, Effect::PortsChanged];
    assert_eq!(done(&mut state, &pair(true)), both);
    assert!(state.desired().managed && state.desired().quarantined && state.reports());
    assert_eq!(state.epmac(), OTHER.parse().unwrap());
    assert_eq!(done(&mut state, &pair(false)), both);
    add(&mut state, MAC);
    assert_eq!(state.epmac(), POD_MAC, "its own interfaces come first");
    done(&mut state, r#"{"ctrl_del_port_pair":{"vex_iface":"a","vin_iface":"b","epmac":""}}"#);
    assert!(state.ports().next().is_none());
}

#[test]
fn a_bridge_that_does_not_know_the_interfaces_names_the_pod_itself() {
    let mut state = state();
    add(&mut state, OTHER);
    assert!(!state.desired().managed, "some other pod's");
    let named = format!(
        r#"{{"ctrl_add_mac":{{"iface":"eth0","mac":"{OTHER}","pips":null,"outrider_pod":true}}}}"#
    );
    done(&mut state, &named);
    assert!(state.desired().managed);
    assert_eq!(state.epmac(), OTHER.parse().unwrap(), "reports carry it");
    let kept: Vec<_> = state.journal().unwrap().datagrams().unwrap();
    let mut restored = State::new(&[POD_MAC], None);
    for datagram in kept {
        apply(&mut restored, std::str::from_utf8(&datagram).unwrap());
    }
    assert_eq!(restored.epmac(), OTHER.parse().unwrap(), "after a restart too");
}

#[test]
fn reports_stop_with_the_last_port_and_go_on_with_the_next() {
    let mut state = state();
    add(&mut state, MAC);
    let tap_port = format!(
        r#"{{"ctrl_add_tap_port":{{"netns":"/proc/1/ns/net","iface":"eth0","epmac":"{MAC}"}}}}"#
    );
    done(&mut state, &tap_port);
    assert!(state.reports());
    done(&mut state, r#"{"ctrl_del_tap_port":{"netns":"","iface":"eth0","epmac":""}}"#);
    assert!(!state.reports());
    let queue = format!(
        r#"{{"ctrl_add_nfq_port":{{"netns":"","iface":"eth0","qnum":1,"epmac":"{MAC}"}}}}"#
    );
    done(&mut state, &queue);
    assert!(state.reports());
}

#[test]
fn switches_that_do_not_change_compile_nothing() {
    let mut state = state();
    for key in ["ctrl_disable_net_policy", "ctrl_enable_icmp_policy", "ctrl_strict_group_mode"] {
        let member = key.trim_start_matches("ctrl_");
        let on = format!(r#"{{"{key}":{{"{member}":true}}}}"#);
        assert_eq!(done(&mut state, &on), [Effect::PolicyChanged], "{key}");
        assert!(done(&mut state, &on).is_empty(), "{key}");
        let null = format!(r#"{{"{key}":{{"{member}":null}}}}"#);
        assert_eq!(done(&mut state, &null), [Effect::PolicyChanged], "{key}: null is off");
    }
    let all = r#"{"ctrl_enable_icmp_policy":{"enable_icmp_policy":false,"enable_ip_policy":true}}"#;
    assert_eq!(done(&mut state, all), [Effect::PolicyChanged]);
    assert!(done(&mut state, all).is_empty());
}

#[test]
fn networks_and_names_reach_the_engine() {
    let mut state = state();
    let net = r#"[{"ip":"10.0.0.5","mask":"255.0.0.0"},{"ip":"1.2.3.4","mask":"255.0.255.0"}]"#;
    done(&mut state, &format!(r#"{{"ctrl_cfg_internal_net":{{"flag":3,"subnet_addr":{net}}}}}"#));
    done(
        &mut state,
        r#"{"ctrl_cfg_specip_net":{"flag":3,"subnet_addr":[
            {"ip":"10.9.0.1","mask":"255.255.255.255","iptype":"HostIP"},
            {"ip":"10.9.0.2","mask":"255.255.255.255","iptype":"nonsense"}],
            "subnet_addr6":[{"ip":"fd00::1","mask":"ffff:ffff:ffff:ffff::","iptype":"svcip"}]}}"#,
    );
    done(
        &mut state,
        r#"{"ctrl_cfg_set_fqdn":{"fqdn_name":"*.Example.test","fqdn_ips":["203.0.113.9"],"vhost":true}}"#,
    );
    let network = state.desired().network;
    assert_eq!(
        network.internal,
        ["10.0.0.0/8".parse().unwrap()],
        "masks that are none are left out"
    );
    assert_eq!(network.special.len(), 2, "kinds that are none are left out");
    assert_eq!(network.names.len(), 1);
    done(&mut state, r#"{"ctrl_cfg_del_fqdn":{"names":["*.example.test","unknown.test"]}}"#);
    assert!(state.desired().network.names.is_empty());
    let nothing = r#"{"ctrl_cfg_set_fqdn":{"fqdn_name":"a.test","fqdn_ips":[],"vhost":true}}"#;
    assert!(done(&mut state, nothing).is_empty());
}

#[test]
fn a_name_that_is_none_changes_nothing() {
    let mut state = state();
    let bad = r#"{"ctrl_cfg_set_fqdn":{"fqdn_name":"a b","fqdn_ips":["203.0.113.9"]}}"#;
    assert_eq!(refused(&mut state, bad), "name");
    assert!(state.desired().network.names.is_empty());
}

#[test]
fn requests_for_nobody_are_ignored_with_a_reason() {
    let mut state = state();
    for text in [
        r#"{"ctrl_cfg_mac":{"macs":[],"tap":true}}"#,
        r#"{"ctrl_cfg_nbe":{"macs":null,"nbe":true}}"#,
        r#"{"ctrl_cfg_policy":{"cmd":1,"flag":3,"mac":[],"rules":[]}}"#,
        r#"{"ctrl_cfg_dlpmac":{"delmac":[]}}"#,
        r#"{"ctrl_bld_dlpmac":{"oldmac":[],"addmac":[],"delmac":[]}}"#,
    ] {
        assert_eq!(refused(&mut state, text), "no-workload", "{text}");
    }
}

#[test]
fn the_boundary_of_the_namespace_is_part_of_the_network() {
    let mut state = state();
    add(&mut state, MAC);
    let on = format!(r#"{{"ctrl_cfg_nbe":{{"macs":["{MAC}"],"nbe":true}}}}"#);
    assert_eq!(done(&mut state, &on), [Effect::PolicyChanged]);
    assert!(state.desired().network.boundary);
    let unchanged = format!(r#"{{"ctrl_cfg_nbe":{{"macs":["{MAC}"]}}}}"#);
    assert!(done(&mut state, &unchanged).is_empty());
}

#[test]
fn endpoints_and_ports_are_bounded() {
    let mut state = state();
    for n in 0..endpoint::MAX_ENDPOINTS {
        add(&mut state, &format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256));
    }
    let one_more = r#"{"ctrl_add_mac":{"iface":"eth0","mac":"02:00:00:01:00:00"}}"#;
    assert_eq!(refused(&mut state, one_more), "full");
    let port = |n: usize| {
        format!(r#"{{"ctrl_add_tap_port":{{"netns":"","iface":"if{n}","epmac":"{OTHER}"}}}}"#)
    };
    (0..endpoint::MAX_PORTS).for_each(|n| drop(done(&mut state, &port(n))));
    assert_eq!(refused(&mut state, &port(endpoint::MAX_PORTS)), "full");
}

#[test]
fn every_golden_request_is_carried_out_and_every_key_is_among_them() {
    let mut state = state();
    let mut keys = BTreeSet::new();
    let mut files: Vec<_> = fs::read_dir(golden("requests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name != "INDEX.json"))
        .collect();
    files.sort();
    add(&mut state, MAC);
    for path in &files {
        for command in Request::parse_datagram(&fs::read(path).unwrap()).unwrap() {
            let request = command.request.unwrap();
            keys.insert(request.key());
            let outcome = state.apply(request);
            let empty = path.to_string_lossy().contains("nil_macs");
            assert_eq!(outcome.is_err(), empty, "{}: {outcome:?}", path.display());
        }
    }
    assert_eq!((files.len(), keys.len()), (89, 37));
}

#[test]
fn the_journal_brings_the_same_state_about() {
    let mut state = state();
    add(&mut state, MAC);
    tap(&mut state, false);
    let many = vec![RULE; 100].join(",");
    let mut policy = match Request::parse_datagram(policy_text(1, 3, 7, RULE).as_bytes())
        .unwrap()
        .pop()
    {
        Some(command) => match command.request.unwrap() {
            Request::CfgPolicy(policy) => policy,
            other => panic!("{other:?}"),
        },
        None => panic!("no command"),
    };
    policy.rules = policy
        .rules
        .iter()
        .cycle()
        .take(many.matches("\"id\"").count())
        .cloned()
        .collect();
    for datagram in split(&policy, Request::CfgPolicy).unwrap() {
        done(&mut state, std::str::from_utf8(&datagram).unwrap());
    }
    for text in [
        r#"{"ctrl_cfg_internal_net":{"flag":3,"subnet_addr":[{"ip":"10.0.0.0","mask":"255.0.0.0"}],"subnet_addr6":[{"ip":"fd00::","mask":"ffff::"}]}}"#,
        r#"{"ctrl_cfg_specip_net":{"flag":3,"subnet_addr":[{"ip":"10.1.0.0","mask":"255.255.0.0","iptype":"svcip"}]}}"#,
        r#"{"ctrl_cfg_policy_addr":{"flag":3,"subnet_addr":[{"ip":"10.77.1.5","mask":"255.255.255.255"}]}}"#,
        r#"{"ctrl_cfg_set_fqdn":{"fqdn_name":"a.test","fqdn_ips":["203.0.113.9"],"vhost":true}}"#,
        r#"{"ctrl_strict_group_mode":{"strict_group_mode":true}}"#,
        r#"{"ctrl_add_port_pair":{"vex_iface":"a","vin_iface":"b","epmac":"0a:58:0a:4d:01:05","quar":true}}"#,
    ] {
        done(&mut state, text);
    }
    let law = state.desired().law;
    state.accepted(&law);

    let journal = state.journal().unwrap().datagrams().unwrap();
    let mut again = State::new(&[POD_MAC], None);
    for datagram in &journal {
        done(&mut again, std::str::from_utf8(datagram).unwrap());
    }
    let (before, after) = (state.desired(), again.desired());
    assert_eq!(before.spec().unwrap(), after.spec().unwrap());
    assert_eq!(before.network.internal, after.network.internal);
    assert_eq!(before.network.special, after.network.special);
    assert_eq!(before.network.policy_addrs, after.network.policy_addrs);
    assert_eq!(before.network.names, after.network.names);
    assert!(after.network.strict && after.quarantined && after.managed);
    assert_eq!((before.mode, after.mode), (Mode::Protect, Mode::Protect));
}
