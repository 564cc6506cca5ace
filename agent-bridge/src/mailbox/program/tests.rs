use outrider_model::PolicyAction;
use outrider_policy::PolicySpec;
use outrider_wire::{limits::MAX_REQUEST, request::Command};

use super::*;

fn desired(mode: Mode) -> Desired {
    Desired {
        generation: 1,
        workload: Arc::new(Workload {
            uid: "cache".into(),
            name: "default/cache".into(),
            namespace: "default".into(),
            service: "cache".into(),
            addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            mac: "0a:00:00:00:00:02".parse().unwrap(),
            labels: Default::default(),
        }),
        policy: compiled(mode, Vec::new()),
        keeps_rules: false,
        internal: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()].into(),
        special: Arc::default(),
        policy_addrs: vec!["10.0.0.2".parse().unwrap()].into(),
    }
}

fn compiled(mode: Mode, rules: Vec<outrider_policy::RuleSpec>) -> Arc<CompiledPolicy> {
    let default_action = mode.default_action();
    let spec = PolicySpec { default_action, inbound: true, outbound: true, rules, grace: false };
    Arc::new(CompiledPolicy { mode, spec, said: 0, left_out: 0, cut: Vec::new() })
}

fn keys(datagrams: &[Vec<u8>]) -> Vec<String> {
    let parse = |datagram: &Vec<u8>| Request::parse_datagram(datagram).unwrap();
    let name = |command: Command| {
        command
            .request
            .map(|request| request.key().to_owned())
            .unwrap()
    };
    datagrams.iter().flat_map(parse).map(name).collect()
}

#[test]
fn everything_is_said_in_the_order_of_a_reconnect() {
    assert_eq!(
        keys(&everything(&desired(Mode::Protect)).unwrap()),
        [
            "ctrl_set_debug",
            "ctrl_cfg_internal_net",
            "ctrl_cfg_specip_net",
            "ctrl_del_tap_port",
            "ctrl_add_mac",
            "ctrl_add_nfq_port",
            "ctrl_cfg_mac",
            "ctrl_cfg_nbe",
            "ctrl_cfg_policy",
            "ctrl_cfg_policy_addr",
            "ctrl_refresh_app",
            "ctrl_sys_conf",
            "ctrl_disable_net_policy",
            "ctrl_detect_unmanaged_wl",
            "ctrl_enable_icmp_policy",
            "ctrl_strict_group_mode",
        ]
    );
}

#[test]
fn a_policy_carries_mode_direction_and_no_grace() {
    let datagrams = everything(&desired(Mode::Protect)).unwrap();
    let text = String::from_utf8(datagrams[8].clone()).unwrap();
    assert!(text.contains(r#""cmd":1,"flag":3,"defact":7,"dir":3"#), "{text}");
    assert!(text.contains(r#""grace":false"#), "{text}");
    let text = String::from_utf8(datagrams[6].clone()).unwrap();
    assert!(text.contains(r#""tap":false"#), "{text}");
}

#[test]
fn only_what_changed_is_said_again() {
    let old = desired(Mode::Discover);
    assert!(difference(&old, &old).unwrap().is_empty());
    let mut new = old.clone();
    let spec = PolicySpec { default_action: PolicyAction::Deny, ..old.policy.spec.clone() };
    new.policy = Arc::new(CompiledPolicy {
        mode: Mode::Discover,
        spec,
        said: 0,
        left_out: 0,
        cut: Vec::new(),
    });
    let said = difference(&old, &new).unwrap();
    assert_eq!(keys(&said), ["ctrl_cfg_policy"]);
    assert!(
        String::from_utf8(said[0].clone())
            .unwrap()
            .contains(r#""cmd":2"#)
    );
    new.policy = compiled(Mode::Protect, Vec::new());
    assert_eq!(
        keys(&difference(&old, &new).unwrap()),
        [
            "ctrl_del_tap_port",
            "ctrl_add_mac",
            "ctrl_add_nfq_port",
            "ctrl_cfg_mac",
            "ctrl_cfg_policy",
        ]
    );
    assert!(!old.says_the_same(&new));
}

#[test]
fn who_keeps_its_rules_is_told_none_until_it_does_not() {
    let mut kept = desired(Mode::Protect);
    kept.keeps_rules = true;
    let said = keys(&everything(&kept).unwrap());
    assert!(!said.contains(&"ctrl_cfg_policy".to_owned()), "{said:?}");
    let all = keys(&everything(&desired(Mode::Protect)).unwrap());
    assert_eq!(said.len() + 1, all.len(), "{said:?}");
    let mut ruled = kept.clone();
    ruled.policy = compiled(Mode::Monitor, Vec::new());
    let changed = keys(&difference(&kept, &ruled).unwrap());
    assert!(!changed.contains(&"ctrl_cfg_policy".to_owned()), "{changed:?}");
    let ours = desired(Mode::Protect);
    assert!(!kept.says_the_same(&ours));
    assert_eq!(keys(&difference(&kept, &ours).unwrap()), ["ctrl_cfg_policy"]);
}

#[test]
fn a_removed_pod_is_let_go_by_the_port_it_had() {
    let observed = farewell(&desired(Mode::Monitor)).unwrap();
    assert_eq!(keys(&observed), ["ctrl_del_tap_port", "ctrl_del_mac"]);
    let inline = farewell(&desired(Mode::Protect)).unwrap();
    assert_eq!(keys(&inline), ["ctrl_del_nfq_port", "ctrl_del_mac"]);
}

#[test]
fn a_large_policy_of_both_families_arrives_whole() {
    let mut large = desired(Mode::Protect);
    let rule = |number: usize| outrider_policy::RuleSpec {
        id: outrider_model::RuleId(10_001),
        client: match number {
            0..OF_BOTH_FAMILIES => outrider_policy::AddrSpec::External,
            _ => outrider_policy::AddrSpec::one("10.0.0.2".parse().unwrap()),
        },
        server: outrider_policy::AddrSpec::Any,
        ports: (1, 2),
        proto: None,
        action: PolicyAction::Allow,
        direction: outrider_model::Direction::Inbound,
        fqdn: None,
        vhost: false,
        apps: Vec::new(),
    };
    large.policy = compiled(Mode::Protect, (0..MANY).map(rule).collect());
    let datagrams = everything(&large).unwrap();
    assert!(
        datagrams
            .iter()
            .all(|datagram| datagram.len() <= MAX_REQUEST)
    );
    let mut assembler = chunk::Assembler::default();
    let mut whole = None;
    for datagram in &datagrams {
        let mut commands = Request::parse_datagram(datagram).unwrap();
        if let Request::CfgPolicy(part) = commands.remove(0).request.unwrap() {
            whole = assembler.push(part).unwrap();
        }
    }
    let Policy { rules, rules6, .. } = whole.unwrap();
    assert_eq!((rules.len(), rules6.len()), (MANY, OF_BOTH_FAMILIES));
}

const MANY: usize = 10_000;
const OF_BOTH_FAMILIES: usize = 1000;

#[test]
fn nodes_and_tunnels_are_told_as_what_they_are() {
    let mut desired = desired(Mode::Discover);
    desired.special = [
        ("10.9.0.1".parse().unwrap(), SpecialIp::Host),
        ("fd00:9::1".parse().unwrap(), SpecialIp::Tunnel),
    ]
    .into();
    let text = String::from_utf8(everything(&desired).unwrap().remove(2)).unwrap();
    let v4 = r#""subnet_addr":[{"ip":"10.9.0.1","mask":"255.255.255.255","iptype":"hostip"}]"#;
    assert!(text.contains(v4) && text.contains("tunnelip"), "{text}");
    let mut without = desired.clone();
    without.special = Arc::default();
    assert_eq!(keys(&difference(&desired, &without).unwrap()), ["ctrl_cfg_specip_net"]);
}
