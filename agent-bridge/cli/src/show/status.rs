//! The bridge's status, for people: what is covered, what is kept, and after a `!` what is wrong.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use outrider_api::{ControllerStatus, Coverage, LinkStatus, SinkStatus, Status};

use crate::human::{ago, bytes, plain, seconds};

pub(super) fn print(out: &mut impl Write, status: &Status, now: u64) -> io::Result<()> {
    let Status { version, uptime, coverage, store, .. } = status;
    let mut line = |what: &str, text: String| writeln!(out, "{what:<13}  {text}");
    line("bridge", format!("{version}, up {}", seconds(*uptime)))?;
    line("workloads", workloads(status))?;
    line("policy", policy(coverage))?;
    line("rules", rules(status))?;
    line("conversations", status.conversations.to_string())?;
    line("violations", status.violations.to_string())?;
    line("threats", status.threats.to_string())?;
    line("received", counts(&status.received, "nothing"))?;
    line("dropped", counts(&status.dropped, "nothing"))?;
    line("listeners", status.listeners.to_string())?;
    let size = bytes(store.bytes);
    line("store", format!("{}, {size}, {} commits", plain(&store.path), store.commits))?;
    for sink in &status.export {
        line(&format!("to {}", sink.sink), delivered(sink, now))?;
    }
    if let Some(found) = &status.controller {
        line("to controller", reported(found, now))?;
    }
    if let Some(found) = &status.kubernetes {
        line(
            "pods",
            format!("of node {}, as the {} says", plain(&found.node), plain(&found.pods_from)),
        )?;
    }
    if let Some(found) = &status.cluster {
        line("cluster", linked(found, now))?;
    }
    for wrong in wrong(status, now) {
        writeln!(out, "! {}", plain(&wrong))?;
    }
    Ok(())
}

/// `3: 2 connected (relay 1, relay+tap 1), 1 never; discover 2, protect 1`
fn workloads(status: &Status) -> String {
    let Coverage { connected, down, never, tiers, modes, .. } = &status.coverage;
    let mut text = format!("{}: {connected} connected", status.workloads);
    if !tiers.is_empty() {
        text.push_str(&format!(" ({})", counts(tiers, "")));
    }
    for (what, count) in [("down", down), ("never there", never)] {
        if *count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if !modes.is_empty() {
        text.push_str(&format!("; {}", counts(modes, "")));
    }
    text
}

fn policy(coverage: &Coverage) -> String {
    let Coverage { generation, lagging, lag, refusing, .. } = coverage;
    let refused = if *refusing > 0 { format!(", {refusing} refuse it") } else { String::new() };
    match lagging {
        0 if *refusing > 0 => format!("changed {generation} times{refused}"),
        0 => format!("changed {generation} times, every connected proxy has the newest"),
        some => {
            format!("changed {generation} times, {some} waiting for it, {}{refused}", seconds(*lag))
        }
    }
}

fn rules(status: &Status) -> String {
    let Coverage { learned, candidates, .. } = &status.coverage;
    let by_mode =
        if learned.is_empty() { String::new() } else { format!(" into {}", counts(learned, "")) };
    format!("{}{by_mode}; {candidates} beginnings", status.rules)
}

/// `ctrl:18400, admitted, 812 rows sent, last 2s ago`
fn reported(found: &ControllerStatus, now: u64) -> String {
    let ControllerStatus { target, state, sent, last_report, .. } = found;
    let last = ago(now, last_report.unwrap_or_default());
    let mut text = format!("{}, {}, {sent} rows sent, last {last}", plain(target), plain(state));
    for (count, what) in
        [(found.waiting, "waiting"), (found.repeated, "sent again in doubt"), (found.lost, "lost")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// `outrider-controller:18402, linked, revision 812, heard 2s ago, 3 batches told`
fn linked(found: &LinkStatus, now: u64) -> String {
    let LinkStatus { target, state, revision, heard_at, batches, .. } = found;
    let heard = ago(now, *heard_at);
    let mut text = format!(
        "{}, {}, revision {revision}, heard {heard}, {batches} batches told",
        plain(target),
        plain(state)
    );
    for (count, what) in
        [(found.waiting, "waiting"), (found.dropped, "dropped"), (found.refused, "refused")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn delivered(sink: &SinkStatus, now: u64) -> String {
    let SinkStatus { sent, waiting, lag, dropped, last_sent_at, .. } = sink;
    let mut text = format!("{sent} sent, last {}", ago(now, *last_sent_at));
    if *waiting > 0 {
        text.push_str(&format!(", {waiting} waiting up to {}", seconds(*lag)));
    }
    if *dropped > 0 {
        text.push_str(&format!(", {dropped} dropped"));
    }
    text
}

/// What somebody should look at.
fn wrong(status: &Status, now: u64) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(
        status
            .not_ready
            .iter()
            .map(|why| format!("not ready: {why}")),
    );
    let store = &status.store;
    found.extend(
        store
            .set_aside
            .iter()
            .map(|aside| format!("the store could not be read at start and was moved to {aside}")),
    );
    found.extend(
        store
            .failing
            .iter()
            .map(|error| format!("the store cannot be written: {error}")),
    );
    let refused = status.policy_refused.iter();
    found.extend(refused.map(|what| format!("policy refused, the one before stays: {what}")));
    if !status.rules_kept.is_empty() {
        let whose = status.rules_kept.join(", ");
        found.push(format!(
            "the store is new: these go on with the rules they have until their mode is set: {whose}"
        ));
    }
    for sink in status.export.iter().filter(|sink| sink.failures > 0) {
        let error = sink.last_error.as_deref().unwrap_or("unknown");
        let when = ago(now, sink.last_error_at);
        found.push(format!("{} fails, {} times now, {when}: {error}", sink.sink, sink.failures));
    }
    let controller = status.controller.iter();
    let reasons = controller.filter_map(|found| found.reason.as_ref());
    found.extend(reasons.map(|why| format!("the controller takes no reports: {why}")));
    let unlinked = status
        .cluster
        .iter()
        .filter_map(|found| found.reason.as_ref());
    found.extend(
        unlinked.map(|why| format!("no link to the controller, what it said last counts: {why}")),
    );
    let unheard = status
        .kubernetes
        .iter()
        .filter_map(|found| found.failing.as_ref());
    found.extend(
        unheard.map(|why| format!("the API server is not heard, what is known counts: {why}")),
    );
    found.extend(
        status
            .refused
            .iter()
            .map(|mailbox| format!("not served: {mailbox}")),
    );
    found
}

fn counts(counts: &BTreeMap<String, u64>, nothing: &str) -> String {
    let all: Vec<_> = counts
        .iter()
        .map(|(key, count)| format!("{} {count}", plain(key)))
        .collect();
    if all.is_empty() { nothing.into() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use outrider_api::StoreStatus;

    use super::*;

    fn text(status: &Status) -> String {
        let mut out = Vec::new();
        print(&mut out, status, 1000).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_controller_is_a_line_and_what_is_wrong_with_it_another() {
        let found = ControllerStatus {
            target: "ctrl:18400".into(),
            state: "refused".into(),
            reason: Some("not admitted: no\u{1b}[2J".into()),
            last_report: Some(998),
            sent: 812,
            repeated: 3,
            ..ControllerStatus::default()
        };
        let text = text(&Status { controller: Some(found), ..Status::default() });
        let line = "to controller  ctrl:18400, refused, 812 rows sent, last 2s ago";
        assert!(text.contains(&format!("{line}, 3 sent again in doubt\n")), "{text}");
        assert!(text.contains("! the controller takes no reports: not admitted: no"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    fn counts<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
        pairs.map(|(key, count)| (key.to_owned(), count)).into()
    }

    #[test]
    fn a_good_node_has_nothing_to_look_at() {
        let coverage = Coverage {
            connected: 2,
            tiers: counts([("relay", 1), ("relay+tap", 1)]),
            modes: counts([("discover", 2)]),
            generation: 4,
            ..Coverage::default()
        };
        let text = text(&Status { workloads: 2, coverage, ..Status::default() });
        assert!(text.contains("2: 2 connected (relay 1, relay+tap 1); discover 2\n"), "{text}");
        assert!(text.contains("changed 4 times, every connected proxy"), "{text}");
        assert!(!text.contains("\n! "), "{text}");
    }

    #[test]
    fn what_is_wrong_stands_behind_a_mark() {
        let sink = SinkStatus {
            sink: "webhook".into(),
            waiting: 3,
            lag: 60,
            failures: 7,
            last_error: Some("refused\u{1b}".into()),
            last_error_at: 990,
            ..SinkStatus::default()
        };
        let status = Status {
            workloads: 2,
            coverage: Coverage {
                never: 1,
                down: 1,
                lagging: 1,
                lag: 5,
                refusing: 1,
                ..Coverage::default()
            },
            export: vec![sink],
            store: StoreStatus { failing: Some("no space".into()), ..StoreStatus::default() },
            refused: vec!["odd: half a file".into()],
            policy_refused: vec!["default/cache: generation 4: port-range: ports 4 to 1".into()],
            rules_kept: vec!["default/shop".into(), "default/web".into()],
            not_ready: Some("the store cannot be written".into()),
            ..Status::default()
        };
        let text = text(&status);
        for part in [
            "2: 0 connected, 1 down, 1 never there\n",
            "1 waiting for it, 5s, 1 refuse it\n",
            "to webhook     0 sent, last -, 3 waiting up to 1m00s\n",
            "! not ready: the store cannot be written\n",
            "! the store cannot be written: no space\n",
            "! webhook fails, 7 times now, 10s ago: refused\\u{1b}\n",
            "! policy refused, the one before stays: default/cache: generation 4: port-range: ports",
            "until their mode is set: default/shop, default/web\n",
            "! not served: odd: half a file\n",
        ] {
            assert!(text.contains(part), "{part} {text}");
        }
    }
}
