//! Schemas of the words in our objects. Messages say what is allowed, since people read them in `kubectl apply`.

use outrider_model::AppId;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{MAX_APPLICATIONS, MAX_CIDRS, MAX_NAMES, MAX_PORTS, MAX_VALUES};

/// Characters of an object's or a rule's name.
const MAX_NAME: usize = 253;
/// Characters of a rule's name.
const MAX_RULE_NAME: usize = 63;
/// Characters of a network: the longest of IPv6, IPv4 mapped, with its prefix.
const MAX_CIDR: usize = 49;
/// Characters of a port: `sctp/65535-65535`.
const MAX_PORT: usize = 16;

const V4: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/(3[0-2]|[12]?[0-9]))?";
const V6: &str = r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
const NUMBER: &str =
    r"([0-9]|[1-9][0-9]{1,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";

/// Networks of a group.
pub(super) fn cidrs(_: &mut SchemaGenerator) -> Schema {
    list(MAX_CIDRS, &network())
}

/// One network.
pub(super) fn cidr(_: &mut SchemaGenerator) -> Schema {
    network().try_into().unwrap_or_default()
}

/// DNS names of a group.
pub(super) fn names(_: &mut SchemaGenerator) -> Schema {
    list(MAX_NAMES, &domain())
}

/// One DNS name.
pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    domain().try_into().unwrap_or_default()
}

/// Name of an object.
pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_NAME})
}

/// Name of a rule.
pub(super) fn rule_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_RULE_NAME,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "message": "must be lower case letters, digits and '-', beginning and ending with a letter or digit",
        }],
    })
}

/// `true`, said outright.
pub(super) fn yes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean", "enum": [true]})
}

/// Ports of a rule.
pub(super) fn ports(_: &mut SchemaGenerator) -> Schema {
    let form = format!("self.matches('^(any|icmp|(tcp|udp|sctp)/(any|{NUMBER}(-{NUMBER})?))$')");
    let order =
        "!self.contains('-') || int(self.split('/')[1].split('-')[0]) <= int(self.split('-')[1])";
    let port = json!({
        "type": "string",
        "maxLength": MAX_PORT,
        "x-kubernetes-validations": [
            {"rule": form, "message": "must be 'any', 'icmp', or like 'tcp/80', 'udp/53', 'sctp/any', 'tcp/8000-8010', with ports up to 65535"},
            {"rule": format!("!{form} || ({order})"), "message": "the first port of a range must not be above the last"},
        ],
    });
    list(MAX_PORTS, &port)
}

/// Applications of a rule, and the word for those that can't be identified.
pub(super) fn applications(_: &mut SchemaGenerator) -> Schema {
    let known = AppId::known().map(|(_, name)| name.to_owned());
    let known: Vec<_> = known.chain([AppId::UNIDENTIFIED.to_string()]).collect();
    list(MAX_APPLICATIONS, &json!({"type": "string", "enum": known}))
}

/// Values of an expression.
pub(super) fn values(_: &mut SchemaGenerator) -> Schema {
    list(MAX_VALUES, &json!({"type": "string", "maxLength": 63}))
}

fn network() -> Value {
    json!({
        "type": "string",
        "maxLength": MAX_CIDR,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches('^({V4}|{V6})$')"),
            "message": "must be an address or a network, like '10.0.0.0/8', '192.0.2.7' or 'fd00::/8'",
        }],
    })
}

fn domain() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_NAME,
        "x-kubernetes-validations": [{
            "rule": r"self.matches('^(\\*\\.)?([a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?\\.)*[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?$')",
            "message": "must be a DNS name, like 'api.example.com', or '*.example.com' for all below",
        }],
    })
}

/// A list without the same twice.
fn list(max: usize, items: &Value) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": max,
        "items": items,
        "x-kubernetes-list-type": "set",
    })
}
