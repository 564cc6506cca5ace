//! What each answer looks like.

use std::{
    io::{self, BufWriter, Stdout, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use outrider_api::{
    Conversation, Explanation, Flow, ModeReply, Rule, Session, Status, Threat, Violation, Workload,
};
use serde::Serialize;

use crate::{
    client::Failure,
    human::{ago, bytes, plain, seconds},
    table::{self, Column},
};

/// Names shown in one cell.
const NAMES_SHOWN: usize = 3;

/// One element of a list: its columns and its cells.
pub(crate) trait Row: Serialize {
    /// Said instead of an empty table.
    const NOTHING: &'static str;
    /// The header.
    const COLUMNS: &'static [Column];
    /// One cell a column.
    fn cells(&self, now: u64) -> Vec<String>;
}

/// Standard output, as a table or as JSON.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

type Printed = Result<(), Failure>;

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()) }
    }

    /// A list: one object a line, or a table.
    pub(crate) fn list<T: Row>(&mut self, rows: &[T]) -> Printed {
        if self.json {
            for row in rows {
                self.object(row)?;
            }
        } else if rows.is_empty() {
            writeln!(self.out, "{}", T::NOTHING)?;
        } else {
            let now = now();
            table::print(&mut self.out, T::COLUMNS, rows.iter().map(|row| row.cells(now)))?;
        }
        Ok(self.out.flush()?)
    }

    pub(crate) fn status(&mut self, status: &Status) -> Printed {
        if self.json {
            return self.object(status);
        }
        let Status { version, uptime, workloads, proxies_connected, .. } = status;
        writeln!(self.out, "bridge {version}, up {}", seconds(*uptime))?;
        writeln!(self.out, "workloads      {workloads}, {proxies_connected} connected")?;
        writeln!(self.out, "rules          {}", status.rules)?;
        writeln!(self.out, "conversations  {}", status.conversations)?;
        writeln!(self.out, "violations     {}", status.violations)?;
        writeln!(self.out, "threats        {}", status.threats)?;
        for (what, counts) in [("received", &status.received), ("dropped", &status.dropped)] {
            let counts: Vec<_> = counts
                .iter()
                .map(|(key, count)| format!("{key} {count}"))
                .collect();
            let counts = if counts.is_empty() { "nothing".into() } else { counts.join(", ") };
            writeln!(self.out, "{what:<13}  {counts}")?;
        }
        let store = &status.store;
        writeln!(self.out, "store          {}, {} commits", store.path, store.commits)?;
        if let Some(aside) = &store.set_aside {
            writeln!(self.out, "! the store could not be read at start and was moved to {aside}")?;
        }
        if let Some(error) = &store.failing {
            writeln!(self.out, "! the store cannot be written: {error}")?;
        }
        for refused in &status.refused {
            writeln!(self.out, "! {}", plain(refused))?;
        }
        Ok(self.out.flush()?)
    }

    pub(crate) fn mode(&mut self, workload: &Workload) -> Printed {
        if self.json {
            let Workload { name, group, mode, .. } = workload;
            return self
                .object(&serde_json::json!({ "workload": name, "group": group, "mode": mode }));
        }
        writeln!(self.out, "{}", workload.mode)?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn mode_set(&mut self, reply: &ModeReply) -> Printed {
        if self.json {
            return self.object(reply);
        }
        writeln!(
            self.out,
            "{} ({}) is in {}: pushed to {}{}",
            reply.workload,
            reply.group,
            reply.mode,
            count(reply.pushed, "connected proxy", "connected proxies"),
            match reply.absent {
                0 => String::new(),
                absent => format!(", {absent} not connected"),
            }
        )?;
        Ok(self.out.flush()?)
    }

    pub(crate) fn explanation(&mut self, answer: &Explanation) -> Printed {
        if self.json {
            return self.object(answer);
        }
        let Explanation { client, server, port, app, verdict, .. } = answer;
        writeln!(self.out, "{client} -> {server} port {port} ({app}): {verdict}")?;
        for judged in &answer.judged {
            writeln!(
                self.out,
                "  at {} ({}, {}): {}, rule {}: {}",
                judged.at, judged.direction, judged.mode, judged.action, judged.rule, judged.reason
            )?;
        }
        if !answer.to_allow.is_empty() {
            writeln!(self.out, "to allow it: {}", answer.to_allow)?;
        }
        Ok(self.out.flush()?)
    }

    fn object(&mut self, value: &impl Serialize) -> Printed {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        writeln!(self.out)?;
        Ok(self.out.flush()?)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn port(proto: &str, port: u16) -> String {
    format!("{proto}/{port}")
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
    ];

    fn cells(&self, now: u64) -> Vec<String> {
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
            ago(now, self.evidence.last_seen),
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
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        vec![
            self.name.clone(),
            self.group.clone(),
            self.mode.clone(),
            self.proxy.label().into(),
            self.rules.to_string(),
            self.policy_version.to_string(),
            self.addresses.join(", "),
        ]
    }
}
