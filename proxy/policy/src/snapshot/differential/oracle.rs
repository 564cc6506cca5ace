//! Policy as its description says it, step by step, without any index.

use std::net::IpAddr;

use crate::{AddrSpec, AppKnowledge, Name, Network, PolicySpec, Query, RuleSpec, SpecialKind};
use outrider_model::{
    AppId, Decision, DecisionCause, Direction, IpProto, Mode, PolicyAction, RuleId,
};

pub(crate) fn decide(spec: &PolicySpec, network: &Network, query: &Query<'_>) -> Decision {
    let open = |cause| Decision { action: PolicyAction::Open, rule: RuleId(0), cause };
    if network.disabled {
        return open(DecisionCause::NoPolicy);
    }
    if is_link_local(query.client) || is_link_local(query.server) {
        return open(DecisionCause::LinkLocal);
    }
    let everywhere = network.boundary || (network.strict && query.mode == Mode::Protect);
    let peer = peer(query);
    let special = special(network, peer);
    let unmanaged = special == Some(SpecialKind::Unmanaged);
    let internal = is_internal(network, peer);
    let other_end = Some(open(DecisionCause::OtherEnd));
    let settled = match query.direction {
        Direction::Inbound if internal && !spec.inbound && !unmanaged && !everywhere => other_end,
        Direction::Inbound => None,
        Direction::Outbound
            if internal
                && !is_internal(network, query.client)
                && spec.outbound
                && !spec.inbound
                && !unmanaged =>
        {
            other_end
        }
        Direction::Outbound if !internal && special == Some(SpecialKind::ServiceExternal) => {
            let action = violation(query.mode);
            Some(Decision { action, rule: RuleId(0), cause: DecisionCause::ServiceExternalIp })
        }
        Direction::Outbound
            if internal
                && !spec.outbound
                && !unmanaged
                && special != Some(SpecialKind::Host)
                && !everywhere
                && !spec
                    .rules
                    .iter()
                    .any(|rule| has_name(spec, network, rule, peer)) =>
        {
            other_end
        }
        Direction::Outbound if network.boundary && special == Some(SpecialKind::Service) => {
            other_end
        }
        Direction::Outbound => None,
    };
    if let Some(decision) = settled {
        return decision;
    }
    if unmanaged && !network.detect_unmanaged {
        return open(DecisionCause::Unmanaged);
    }
    walk(spec, network, query)
}

fn walk(spec: &PolicySpec, network: &Network, query: &Query<'_>) -> Decision {
    for rule in &spec.rules {
        if !matches(spec, network, rule, query) {
            continue;
        }
        let host = host_matches(network, rule, query);
        if host == Some(false) {
            continue;
        }
        let Some((action, id)) = said(rule, query.app) else { continue };
        if action == PolicyAction::CheckApp {
            return result(action, id);
        }
        if host.is_none() {
            return result(PolicyAction::CheckVhost, id);
        }
        return match action {
            PolicyAction::CheckBoundary if network.boundary => Decision {
                action: violation(query.mode),
                rule: RuleId(0),
                cause: DecisionCause::Boundary,
            },
            PolicyAction::CheckBoundary => result(PolicyAction::Allow, id),
            action => result(action, id),
        };
    }
    match query.proto {
        IpProto::TCP | IpProto::UDP => default(spec),
        IpProto::ICMP | IpProto::ICMPV6 if network.icmp_policy => default(spec),
        _ if network.ip_policy => default(spec),
        IpProto::ICMP | IpProto::ICMPV6 => result(PolicyAction::Allow, RuleId(0)),
        _ => Decision::default(),
    }
}

fn default(spec: &PolicySpec) -> Decision {
    let action = match spec.default_action {
        PolicyAction::CheckBoundary => PolicyAction::Allow,
        action => action,
    };
    result(action, RuleId(0))
}

fn result(action: PolicyAction, rule: RuleId) -> Decision {
    let cause = if rule == RuleId(0) { DecisionCause::Default } else { DecisionCause::Rule };
    Decision { action, rule, cause }
}

/// What a rule that matches says of an application; `None` sends it on to the next rule.
fn said(rule: &RuleSpec, app: AppKnowledge) -> Option<(PolicyAction, RuleId)> {
    if rule.action != PolicyAction::CheckApp {
        return Some((rule.action, rule.id));
    }
    let app = match app {
        AppKnowledge::Pending if rule.apps.is_empty() => return None,
        AppKnowledge::Pending => return Some((PolicyAction::CheckApp, rule.id)),
        AppKnowledge::Known(AppId::UNKNOWN) | AppKnowledge::Unidentified => AppId::UNIDENTIFIED,
        AppKnowledge::Known(app) => app,
    };
    rule.apps
        .iter()
        .find(|entry| entry.app == AppId::ANY || entry.app == app)
        .map(|entry| (entry.action, entry.rule))
}

fn matches(spec: &PolicySpec, network: &Network, rule: &RuleSpec, query: &Query<'_>) -> bool {
    let (rule_peer, rule_local, local) = match query.direction {
        Direction::Inbound => (rule.client, rule.server, query.server),
        Direction::Outbound => (rule.server, rule.client, query.client),
    };
    let peer = peer(query);
    let peer_matches = match (&rule.fqdn, rule_peer) {
        (Some(_), _) => has_name(spec, network, rule, peer),
        (None, AddrSpec::External) => !is_internal(network, peer),
        (None, range) => contains(range, peer),
    };
    let is_icmp = matches!(query.proto, IpProto::ICMP | IpProto::ICMPV6);
    let port = if is_icmp { 0 } else { query.port };
    let proto_matches = match rule.proto {
        None => {
            matches!(query.proto, IpProto::TCP | IpProto::UDP)
                || (is_icmp && network.icmp_policy)
                || network.ip_policy
        }
        Some(IpProto::ICMP | IpProto::ICMPV6) => is_icmp,
        Some(proto) => proto == query.proto,
    };
    rule.direction == query.direction
        && peer_matches
        && contains(rule_local, local)
        && rule.ports.0 <= port
        && port <= rule.ports.1
        && proto_matches
}

/// Whether an address is one of those that a rule's name stands for.
fn has_name(spec: &PolicySpec, network: &Network, rule: &RuleSpec, address: IpAddr) -> bool {
    let Some(name) = &rule.fqdn else { return false };
    let given = spec
        .rules
        .iter()
        .filter(|other| other.fqdn.as_ref() == Some(name))
        .any(|other| {
            let peer =
                if other.direction == Direction::Inbound { other.client } else { other.server };
            peer == AddrSpec::one(address)
        });
    given
        || network.names.iter().any(|(known, mut addresses)| {
            (known == name || (!known.is_wildcard() && falls_under(name, known)))
                && addresses.any(|a| a == address)
        })
}

fn falls_under(wildcard: &Name, name: &Name) -> bool {
    wildcard.is_wildcard() && wildcard.matches(name.as_str())
}

/// `None`: not known yet.
fn host_matches(network: &Network, rule: &RuleSpec, query: &Query<'_>) -> Option<bool> {
    let Some(name) = &rule.fqdn else { return Some(true) };
    if !rule.vhost && !network.names.vhost(name) {
        return Some(true);
    }
    match query.host {
        Some(host) => Some(name.matches(host)),
        None if query.app == AppKnowledge::Pending => None,
        None => Some(false),
    }
}

fn contains(spec: AddrSpec, address: IpAddr) -> bool {
    match spec {
        AddrSpec::Any => true,
        AddrSpec::External => false,
        AddrSpec::Range(low, high) => {
            low.is_ipv4() == address.is_ipv4() && low <= address && address <= high
        }
    }
}

fn peer(query: &Query<'_>) -> IpAddr {
    if query.direction == Direction::Inbound { query.client } else { query.server }
}

fn special(network: &Network, address: IpAddr) -> Option<SpecialKind> {
    network
        .special
        .iter()
        .find(|(net, _)| net.contains(&address))
        .map(|(_, kind)| *kind)
}

fn is_internal(network: &Network, address: IpAddr) -> bool {
    let mut nets = network
        .internal
        .iter()
        .filter(|net| net.addr().is_ipv4() == address.is_ipv4())
        .peekable();
    address.is_loopback() || nets.peek().is_none() || nets.any(|net| net.contains(&address))
}

fn is_link_local(address: IpAddr) -> bool {
    let text = address.to_string();
    text.starts_with("169.254.") || text.starts_with("fe80:")
}

fn violation(mode: Mode) -> PolicyAction {
    if mode == Mode::Protect { PolicyAction::Deny } else { PolicyAction::Violate }
}
