//! Policy as the agent sends it, in the policy engine's words.

use std::net::IpAddr;

use outrider_model::{Direction, IpProto, Mode};
use outrider_policy::{
    AddrSpec, AppRule, IpNet, Name, PolicyError, PolicySpec, RuleSpec, SpecialKind,
};
use outrider_wire::{
    ActionCode, Directions,
    request::{Policy, Rule, RuleApp, SpecialIp, SpecialSubnet, Subnet, TextIp},
};

#[cfg(test)]
mod tests;

/// Why a policy is refused whole.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    /// An action that this build does not know: what it would do cannot be guessed.
    #[error("action {0} is not known")]
    Action(u8),
    /// The policy engine refuses it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl Refused {
    /// The closed label of logs and metrics.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Action(_) => "unknown-action",
            Self::Policy(error) => error.reason(),
        }
    }
}

/// Translates a policy, with the number of rules left out because they match nothing.
pub(crate) fn spec(policy: &Policy) -> Result<(PolicySpec, usize), Refused> {
    let wire = policy.rules.iter().chain(&policy.rules6);
    let mut rules = Vec::with_capacity(policy.rules.len().saturating_add(policy.rules6.len()));
    let mut idle = 0_usize;
    for rule in wire {
        match rule_spec(rule)? {
            Some(spec) => rules.push(spec),
            None => idle = idle.saturating_add(1),
        }
    }
    let spec = PolicySpec {
        default_action: action(policy.default_action)?,
        inbound: policy.directions.contains(Directions::INGRESS),
        outbound: policy.directions.contains(Directions::EGRESS),
        rules,
        grace: policy.grace.unwrap_or(true),
    };
    Ok((spec, idle))
}

/// The policy of a mode that nobody has given rules for.
#[must_use]
pub(crate) fn default_spec(mode: Mode) -> PolicySpec {
    PolicySpec {
        default_action: mode.default_action(),
        inbound: true,
        outbound: true,
        rules: Vec::new(),
        grace: false,
    }
}

/// One rule; `None` if it matches nothing: the data path reads an empty address as one that nobody
/// has, and no flow has ends of two families.
fn rule_spec(rule: &Rule) -> Result<Option<RuleSpec>, Refused> {
    let client = address(rule.client, rule.client_end);
    let server = address(rule.server, rule.server_end);
    let (Some(client), Some(server)) = (client, server) else { return Ok(None) };
    if let (AddrSpec::Range(client, _), AddrSpec::Range(server, _)) = (client, server)
        && client.is_ipv4() != server.is_ipv4()
    {
        return Ok(None);
    }
    Ok(Some(RuleSpec {
        id: rule.id,
        client,
        server,
        ports: (rule.port, rule.port_end),
        proto: (rule.proto != IpProto(0)).then_some(rule.proto),
        action: action(rule.action)?,
        direction: if rule.ingress { Direction::Inbound } else { Direction::Outbound },
        fqdn: rule.fqdn.as_deref().map(Name::new).transpose()?,
        vhost: rule.vhost,
        apps: rule.apps.iter().map(app_rule).collect::<Result<_, _>>()?,
    }))
}

fn app_rule(app: &RuleApp) -> Result<AppRule, Refused> {
    Ok(AppRule { app: app.app, action: action(app.action)?, rule: app.rule })
}

fn action(code: ActionCode) -> Result<outrider_model::PolicyAction, Refused> {
    code.known().ok_or(Refused::Action(code.0))
}

/// A range, or the external marker: the unspecified address without a high end.
fn address(low: TextIp, high: Option<TextIp>) -> Option<AddrSpec> {
    let low: IpAddr = low.0?;
    match high {
        None if low.is_unspecified() => Some(AddrSpec::External),
        None => Some(AddrSpec::one(low)),
        Some(TextIp(high)) => Some(AddrSpec::Range(low, high?)),
    }
}

/// A subnet, its host bits cleared; `None` if the mask is no prefix.
#[must_use]
pub(crate) fn subnet(subnet: &Subnet) -> Option<IpNet> {
    subnet.net().map(|net| net.trunc())
}

/// A subnet of a kind; `None` if either is not understood.
#[must_use]
pub(crate) fn special(subnet: &SpecialSubnet) -> Option<(IpNet, SpecialKind)> {
    let kind = match subnet.iptype {
        SpecialIp::Tunnel => SpecialKind::Tunnel,
        SpecialIp::Service => SpecialKind::Service,
        SpecialIp::Host => SpecialKind::Host,
        SpecialIp::Device => SpecialKind::Device,
        SpecialIp::Unmanaged => SpecialKind::Unmanaged,
        SpecialIp::ServiceExternal => SpecialKind::ServiceExternal,
        SpecialIp::Other(_) => return None,
    };
    subnet.net().map(|net| (net.trunc(), kind))
}
