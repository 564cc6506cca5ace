//! What would become of the conversations that a bridge knows.

use outrider_api::{ReplayReply, ReplayRequest, Replayed, paths};
use outrider_model::Mode;

use super::{import::judge, source::Source};
use crate::{
    Asked,
    client::Failure,
    human::ago,
    show::{Output, Row},
    table::Column,
};

/// Prints the conversations that a policy would treat otherwise; it is a failure if it would deny any.
pub(super) async fn run(
    asked: &Asked,
    output: &mut Output,
    file: &Source,
    (alone, mode): (bool, Option<Mode>),
) -> Result<(), Failure> {
    let Asked::Bridge(client) = asked else {
        return Err(Failure::Usage(
            "a replay is for a node without a cluster, whose bridge knows the labels of all its pods; in a cluster \
             put the pods into Monitor, and `violations` says what Protect would refuse"
                .into(),
        ));
    };
    let (policy, _objects) = file.policy(asked, output).await?;
    let wanted = ReplayRequest { policy, alone, mode: mode.map(|mode| mode.name().to_owned()) };
    let reply: ReplayReply = client.post(paths::REPLAY, &wanted).await?;
    judge(output, &reply.objects)?;
    output.list(&reply.changed)?;
    let ReplayReply { judged, unjudged, left_out, changed, .. } = reply;
    output.note(&format!("{judged} conversations were judged; {unjudged} could not be, their ends being gone or without an address"))?;
    if left_out > 0 {
        output.note(&format!("{left_out} more would be treated otherwise and are not shown"))?;
    }
    let denied = changed.iter().filter(|one| one.after == "deny");
    let sessions: u64 = denied.clone().map(|one| one.sessions).sum();
    match denied.count() {
        0 => Ok(()),
        count => Err(Failure::Refused(format!(
            "{count} of the conversations that are allowed now would be denied, {sessions} sessions so far"
        ))),
    }
}

impl Row for Replayed {
    const NOTHING: &'static str = "nothing that was seen would be treated otherwise";
    const COLUMNS: &'static [Column] = &[
        Column::Left("CLIENT"),
        Column::Left("SERVER"),
        Column::Left("APP"),
        Column::Left("PORT"),
        Column::Right("SESSIONS"),
        Column::Left("LAST SEEN"),
        Column::Left("NOW"),
        Column::Left("WOULD BE"),
        Column::Left("AT"),
        Column::Left("RULE"),
    ];

    fn cells(&self, now: u64) -> Vec<String> {
        let port = match self.proto.as_str() {
            "tcp" | "udp" | "sctp" => format!("{}/{}", self.proto, self.port),
            other => other.to_owned(),
        };
        let rule = if self.rule.is_empty() { "default" } else { &self.rule };
        vec![
            self.client.clone(),
            self.server.clone(),
            self.app.clone(),
            port,
            self.sessions.to_string(),
            ago(now, self.last_seen),
            self.before.clone(),
            self.after.clone(),
            self.at.clone(),
            rule.to_owned(),
        ]
    }
}
