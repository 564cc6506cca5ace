//! One flow as it is shown.

use outrider_model::{Side, ThreatId};
use outrider_packet::{FlowEnd, FlowRecord};
use serde::Serialize;

use crate::{human::bytes, show::Row, table::Column};

/// A threat of a flow.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct ThreatRow {
    pub(super) id: u32,
    pub(super) name: String,
}

impl From<ThreatId> for ThreatRow {
    fn from(id: ThreatId) -> Self {
        Self { id: id.0, name: id.to_string() }
    }
}

/// One line. Names and order of the JSON members are part of the command's contract.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct FlowRow {
    #[serde(skip)]
    pub(super) flow: u64,
    pub(super) proto: String,
    pub(super) client: String,
    pub(super) server: String,
    pub(super) app: String,
    pub(super) app_id: u32,
    pub(super) host: String,
    pub(super) sni: String,
    pub(super) threats: Vec<ThreatRow>,
    pub(super) client_bytes: u64,
    pub(super) server_bytes: u64,
    /// What was not as it should be. Left out if there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

impl Row for FlowRow {
    const NOTHING: &'static str = "no flows in this capture";
    const COLUMNS: &'static [Column] = &[
        Column::Left("PROTO"),
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Right("CLIENT BYTES"),
        Column::Right("SERVER BYTES"),
        Column::Left("NAME"),
        Column::Left("THREATS"),
        Column::Left("NOTES"),
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        let name = if self.host.is_empty() { &self.sni } else { &self.host };
        let threats: Vec<_> = self
            .threats
            .iter()
            .map(|threat| threat.name.as_str())
            .collect();
        vec![
            self.proto.clone(),
            self.client.clone(),
            self.server.clone(),
            self.app.clone(),
            bytes(self.client_bytes),
            bytes(self.server_bytes),
            name.clone(),
            threats.join(", "),
            self.notes.join(", "),
        ]
    }
}

/// What a flow's record says that the other members do not.
pub(super) fn notes(record: &FlowRecord) -> Vec<String> {
    let mut notes = Vec::new();
    if record.mid_stream {
        notes.push("its beginning was not captured".into());
    }
    match record.end {
        FlowEnd::Reset if record.established => notes.push("reset".into()),
        FlowEnd::Reset => notes.push("refused".into()),
        FlowEnd::Evicted => notes.push("given up: too many flows at once".into()),
        _ if !record.established => notes.push("never answered".into()),
        _ => {}
    }
    for side in [Side::Client, Side::Server] {
        let label = side.label();
        let record = record.side(side);
        for (count, what) in [
            (record.lost, "bytes were not captured"),
            (record.early, "segments came out of order"),
            (record.repeated, "bytes were sent again"),
            (record.conflicting, "bytes were sent again and differed"),
        ] {
            if count > 0 {
                notes.push(format!("{label}: {count} {what}"));
            }
        }
    }
    notes
}
