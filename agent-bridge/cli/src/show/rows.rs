//! Columns and cells of each list.

use outrider_api::{Conversation, Flow, ListeningPort, Rule, Session, Threat, Violation, Workload};

use super::Row;
use crate::{
    human::{ago, bytes, seconds},
    table::Column,
};

/// Names shown in one cell.
const NAMES_SHOWN: usize = 3;

/// Listening ports shown in one cell.
const PORTS_SHOWN: usize = 4;

fn port(proto: &str, port: u16) -> String {
    match proto {
        "tcp" | "udp" | "sctp" => format!("{proto}/{port}"),
        _ => proto.to_owned(),
    }
}

/// What a workload listens on.
fn listens(ports: &[ListeningPort]) -> String {
    let shown = ports.iter().take(PORTS_SHOWN);
    let shown: Vec<_> = shown
        .map(|one| format!("{} {}", one.app, port(&one.proto, one.port)))
        .collect();
    let more = if ports.len() > PORTS_SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl Row for Conversation {
    const NOTHING: &'static str = "no conversations yet; they appear a few seconds after traffic";
    const COLUMNS: &'static [Column] = &[
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Left("PORT"),
        Column::Right("SESSIONS"),
        Column::Right("BYTES"),
        Column::Right("VIOLATIONS"),
        Column::Right("THREATS"),
        Column::Left("ACTION"),
        Column::Left("LAST SEEN"),
        Column::Left("NAMES"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        let mut names = self
            .names
            .iter()
            .take(NAMES_SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if self.names.len() > NAMES_SHOWN {
            names.push_str(", …");
        }
        vec![
            self.client.clone(),
            self.server.clone(),
            self.app.clone(),
            port(&self.proto, self.port),
            self.sessions.to_string(),
            bytes(self.bytes),
            self.violations.to_string(),
            self.threats.to_string(),
            self.action.clone(),
            ago(now, self.last_seen),
            names,
        ]
    }
}

impl Row for Rule {
    const NOTHING: &'static str =
        "no rules yet; one is learned once several flows that carried data agree";
    const COLUMNS: &'static [Column] = &[
        Column::Right("ID"),
        Column::Left("FROM"),
        Column::Left("TO"),
        Column::Left("APP"),
        Column::Left("PORTS"),
        Column::Left("ACTION"),
        Column::Left("LEARNED"),
        Column::Right("SESSIONS"),
        Column::Right("BYTES"),
        Column::Right("CLIENTS"),
        Column::Left("LAST SEEN"),
        Column::Left("ORIGIN"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        let last_seen = match self.evidence.last_seen {
            0 => "-".into(),
            at => ago(now, at),
        };
        vec![
            self.id.to_string(),
            self.from.clone(),
            self.to.clone(),
            self.app.clone(),
            self.ports.clone(),
            self.action.clone(),
            if self.learned { "yes" } else { "no" }.into(),
            self.evidence.sessions.to_string(),
            bytes(self.evidence.bytes),
            self.evidence.clients.to_string(),
            last_seen,
            self.origin.clone().unwrap_or_else(|| "learned here".into()),
        ]
    }
}

impl Row for Violation {
    const NOTHING: &'static str = "no violations";
    const COLUMNS: &'static [Column] = &[
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Left("PORT"),
        Column::Left("ACTION"),
        Column::Right("RULE"),
        Column::Right("COUNT"),
        Column::Left("LAST SEEN"),
        Column::Left("REASON"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        let end = |name: &str, ip: &str| {
            if name == ip { name.to_owned() } else { format!("{name} ({ip})") }
        };
        vec![
            end(&self.client, &self.client_ip),
            end(&self.server, &self.server_ip),
            self.app.clone(),
            port(&self.proto, self.port),
            self.action.clone(),
            self.rule.to_string(),
            self.count.to_string(),
            ago(now, self.last_seen),
            self.reason.clone(),
        ]
    }
}

impl Row for Threat {
    const NOTHING: &'static str = "no threats";
    const COLUMNS: &'static [Column] = &[
        Column::Left("SEVERITY"),
        Column::Left("THREAT"),
        Column::Left("WORKLOAD"),
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Right("COUNT"),
        Column::Left("ACTION"),
        Column::Left("REPORTED"),
        Column::Left("WHAT"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        let end = |ip: &str, port: u16| {
            if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
        };
        vec![
            self.severity.clone(),
            format!("{} {}", self.id, self.name),
            self.workload.clone(),
            end(&self.client_ip, self.client_port),
            end(&self.server_ip, self.server_port),
            self.app.clone(),
            self.count.to_string(),
            self.action.clone(),
            ago(now, self.reported_at),
            self.message.clone(),
        ]
    }
}

impl Row for Flow {
    const NOTHING: &'static str = "no samples of flows yet";
    const COLUMNS: &'static [Column] = &[
        Column::Left("WORKLOAD"),
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Left("NAME"),
        Column::Left("ACTION"),
        Column::Right("RULE"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Left("WHEN"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        vec![
            self.workload.clone(),
            self.client.clone(),
            self.server.clone(),
            self.app.clone(),
            if self.host.is_empty() { self.sni.clone() } else { self.host.clone() },
            self.action.clone(),
            self.rule.to_string(),
            bytes(self.bytes_client),
            bytes(self.bytes_server),
            ago(now, self.at),
        ]
    }
}

impl Row for Session {
    const NOTHING: &'static str = "no open flows";
    const COLUMNS: &'static [Column] = &[
        Column::Left("WORKLOAD"),
        Column::Right("ID"),
        Column::Left("DIRECTION"),
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Right("AGE"),
        Column::Right("IDLE"),
        Column::Right("SENT"),
        Column::Right("RECEIVED"),
        Column::Left("ACTION"),
        Column::Right("RULE"),
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        vec![
            self.workload.clone(),
            self.id.to_string(),
            self.direction.clone(),
            self.client.clone(),
            self.server.clone(),
            self.app.clone(),
            seconds(self.age),
            seconds(self.idle),
            bytes(self.bytes_client),
            bytes(self.bytes_server),
            self.action.clone(),
            self.rule.to_string(),
        ]
    }
}

/// The mode, and the one in force if that is another.
fn mode(workload: &Workload) -> String {
    let running = workload.running.as_ref().map(|running| &running.mode);
    match running.filter(|mode| !mode.is_empty() && **mode != workload.mode) {
        Some(mode) => format!("{}, runs {mode}", workload.mode),
        None => workload.mode.clone(),
    }
}

/// How many rules, and what is odd about them.
fn rules(workload: &Workload) -> String {
    let is_full = workload.rules_full || workload.rules_left_out > 0;
    match (&workload.refused, workload.rules_kept, is_full) {
        (Some(_), ..) => format!("{}, refused", workload.rules),
        (None, true, _) => "kept".into(),
        (None, false, true) => format!("{}, full", workload.rules),
        (None, false, false) => workload.rules.to_string(),
    }
}

impl Row for Workload {
    const NOTHING: &'static str = "no workloads; `outrider status` says if a mailbox was refused";
    const COLUMNS: &'static [Column] = &[
        Column::Left("NAME"),
        Column::Left("GROUP"),
        Column::Left("MODE"),
        Column::Left("PROXY"),
        Column::Right("RULES"),
        Column::Right("PUSHES"),
        Column::Left("ADDRESSES"),
        Column::Left("LISTENS"),
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.group.clone(),
            mode(self),
            self.proxy.label().into(),
            rules(self),
            self.policy_version.to_string(),
            self.addresses.join(", "),
            listens(&self.ports),
        ]
    }
}
