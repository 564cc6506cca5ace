//! Connection rows outside policy, as people read them.

use outrider_api::Violation;
use outrider_model::PolicyAction;
use outrider_wire::{Connection, ConnectionFlags};

use super::{kept::Record, roster::Roster};

/// Kinds of violations kept per workload.
pub(crate) const CAP: usize = 512;

impl Record for Violation {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }
}

/// A row as a violation, with its key; `None` for one that violates nothing.
pub(crate) fn read(row: &Connection, roster: &Roster) -> Option<(String, Violation)> {
    let action = row
        .policy_action
        .known()
        .filter(|action| action.violates())?;
    if row.violates == 0 {
        return None;
    }
    let (client, server) = (row.client()?.to_canonical(), row.server()?.to_canonical());
    let violation = Violation {
        client: roster.call(client),
        server: roster.call(server),
        client_ip: client.to_string(),
        server_ip: server.to_string(),
        port: row.server_port,
        proto: row.ip_proto.to_string(),
        app: row.application.to_string(),
        action: action.label().into(),
        rule: row.policy_id.0,
        reason: reason(row, action),
        count: row.violates.into(),
        first_seen: row.first_seen_at.into(),
        last_seen: row.last_seen_at.into(),
    };
    let Violation { client_ip, server_ip, port, proto, app, action, rule, .. } = &violation;
    let key = format!("{client_ip} {server_ip} {proto}/{port} {app} {action} {rule}");
    Some((key, violation))
}

/// Adds up two records of one key.
pub(crate) fn merge(known: &mut Violation, fresh: Violation) {
    let count = known.count.saturating_add(fresh.count);
    let first_seen = known.first_seen.min(fresh.first_seen);
    let last_seen = known.last_seen.max(fresh.last_seen);
    *known = Violation { count, first_seen, last_seen, ..fresh };
}

fn reason(row: &Connection, action: PolicyAction) -> String {
    let outcome = if action == PolicyAction::Deny { "refused" } else { "reported" };
    if row.flags.contains(ConnectionFlags::SVC_EXTIP) {
        format!("{outcome}: goes to a service's external address")
    } else if row.flags.contains(ConnectionFlags::CHK_NBE) {
        format!("{outcome}: crosses an enforced namespace boundary")
    } else if row.policy_id.0 != 0 {
        format!("{outcome} by rule {}", row.policy_id)
    } else {
        format!("{outcome} by default: no rule allows it")
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::{AppId, RuleId};
    use outrider_wire::ActionCode;

    use super::*;

    fn row(action: PolicyAction, violates: u32) -> Connection {
        Connection {
            client_ip: std::net::Ipv4Addr::new(10, 0, 0, 9).into(),
            server_ip: std::net::Ipv4Addr::new(10, 0, 0, 2).into(),
            server_port: 6379,
            policy_action: ActionCode::from(action),
            violates,
            first_seen_at: 5,
            last_seen_at: 7,
            application: AppId::NOT_CHECKED,
            ..Connection::default()
        }
    }

    #[test]
    fn only_what_violates_is_a_violation() {
        let roster = Roster::default();
        assert!(read(&row(PolicyAction::Allow, 1), &roster).is_none());
        assert!(read(&row(PolicyAction::Deny, 0), &roster).is_none());
        let (key, found) = read(&row(PolicyAction::Deny, 3), &roster).unwrap();
        assert_eq!(key, "10.0.0.9 10.0.0.2 tcp/6379 not-checked deny 0");
        assert_eq!((found.count, found.action.as_str()), (3, "deny"));
        assert_eq!(found.reason, "refused by default: no rule allows it");
    }

    #[test]
    fn the_reason_names_the_rule_that_decided() {
        let row = Connection { policy_id: RuleId(7), ..row(PolicyAction::Violate, 1) };
        let (_, found) = read(&row, &Roster::default()).unwrap();
        assert_eq!(found.reason, "reported by rule 7");
    }

    #[test]
    fn equal_violations_add_up() {
        let (_, mut known) = read(&row(PolicyAction::Deny, 3), &Roster::default()).unwrap();
        let fresh = Violation { count: 2, first_seen: 9, last_seen: 11, ..known.clone() };
        merge(&mut known, fresh);
        assert_eq!((known.count, known.first_seen, known.last_seen), (5, 5, 11));
    }
}
