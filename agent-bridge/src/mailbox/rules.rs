//! Rules as the wire has them: one list a family, application lists cut to what a datagram takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outrider_model::{Direction, IpProto, PolicyAction};
use outrider_policy::{AddrSpec, RuleSpec};
use outrider_wire::request::{Rule, RuleApp, TextIp};

/// Applications in one wire rule, so that every rule fits a datagram. A longer list becomes several
/// rules, which say the same: an application that one does not list meets the next.
const APPS_PER_RULE: usize = 64;

/// The rules of each family, in their order. A rule for both families is in both lists.
pub(crate) fn to_wire(rules: &[RuleSpec]) -> (Vec<Rule>, Vec<Rule>) {
    let of = |family: Family| {
        rules
            .iter()
            .flat_map(move |rule| wire(rule, family))
            .collect()
    };
    (of(Family::V4), of(Family::V6))
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

fn wire(rule: &RuleSpec, family: Family) -> Vec<Rule> {
    let (Some((client, client_end)), Some((server, server_end))) =
        (range(rule.client, family), range(rule.server, family))
    else {
        return Vec::new();
    };
    let whole = Rule {
        id: rule.id,
        client: client.into(),
        server: server.into(),
        client_end: client_end.map(TextIp::from),
        server_end: server_end.map(TextIp::from),
        port: rule.ports.0,
        port_end: rule.ports.1,
        proto: rule.proto.unwrap_or(IpProto(0)),
        action: rule.action.into(),
        ingress: rule.direction == Direction::Inbound,
        fqdn: rule.fqdn.as_ref().map(|name| name.as_str().to_owned()),
        vhost: rule.vhost,
        apps: Vec::new(),
    };
    if rule.action != PolicyAction::CheckApp {
        return vec![whole];
    }
    let part = |apps: &[outrider_policy::AppRule]| Rule {
        apps: apps
            .iter()
            .map(|app| RuleApp { app: app.app, action: app.action.into(), rule: app.rule })
            .collect(),
        ..whole.clone()
    };
    rule.apps.chunks(APPS_PER_RULE).map(part).collect()
}

/// Low end, and high end where it differs; `None` if the other family is meant.
fn range(spec: AddrSpec, family: Family) -> Option<(IpAddr, Option<IpAddr>)> {
    let (zero, last): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
        Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from([0xff; 16]).into()),
    };
    match spec {
        AddrSpec::External => Some((zero, None)),
        AddrSpec::Any => Some((zero, Some(last))),
        AddrSpec::Range(low, high) => {
            let (low, high) = (low.to_canonical(), high.to_canonical());
            let end = (low != high).then_some(high);
            (low.is_ipv4() == zero.is_ipv4()).then_some((low, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::{AppId, RuleId};
    use outrider_policy::AppRule;

    use super::*;

    fn rule(client: AddrSpec, server: AddrSpec) -> RuleSpec {
        RuleSpec {
            id: RuleId(10001),
            client,
            server,
            ports: (6379, 6379),
            proto: Some(IpProto::TCP),
            action: PolicyAction::Allow,
            direction: Direction::Inbound,
            fqdn: None,
            vhost: false,
            apps: Vec::new(),
        }
    }

    fn one(text: &str) -> AddrSpec {
        AddrSpec::one(text.parse().unwrap())
    }

    #[test]
    fn a_rule_goes_to_the_lists_of_the_families_it_means() {
        for (client, server, counts) in [
            (one("10.0.0.1"), one("10.0.0.2"), (1, 0)),
            (one("fd00::1"), one("fd00::2"), (0, 1)),
            (one("fd00::1"), one("10.0.0.2"), (0, 0)),
            (AddrSpec::External, one("10.0.0.2"), (1, 0)),
            (AddrSpec::Any, AddrSpec::External, (1, 1)),
        ] {
            let (v4, v6) = to_wire(&[rule(client, server)]);
            assert_eq!((v4.len(), v6.len()), counts, "{client:?} {server:?}");
        }
    }

    #[test]
    fn external_is_zero_without_an_end_and_any_is_the_whole_family() {
        let (v4, v6) = to_wire(&[rule(AddrSpec::External, AddrSpec::Any)]);
        assert_eq!((v4[0].client, v4[0].client_end), (TextIp::EXTERNAL, None));
        let last: IpAddr = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(v6[0].server_end, Some(last.into()));
        let (v4, _) = to_wire(&[rule(one("10.0.0.1"), one("10.0.0.2"))]);
        assert_eq!(v4[0].client_end, None);
    }

    #[test]
    fn a_long_list_of_applications_becomes_several_rules() {
        let app = |id| AppRule { app: AppId(id), action: PolicyAction::Allow, rule: RuleId(id) };
        let apps = (1..=150).map(app).collect();
        let checked = RuleSpec {
            action: PolicyAction::CheckApp,
            apps,
            ..rule(one("10.0.0.1"), AddrSpec::Any)
        };
        let (v4, _) = to_wire(&[checked]);
        assert_eq!(v4.iter().map(|rule| rule.apps.len()).collect::<Vec<_>>(), [64, 64, 22]);
    }
}
