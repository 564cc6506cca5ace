//! Threat logs, as people read them. Both ends of a flow may report what it carried; it is shown
//! once, as the server's proxy has it, unless the client's proxy stopped it.

use std::collections::HashSet;

use outrider_api::Threat;
use outrider_model::ThreatAction;
use outrider_wire::{ThreatFlags, ThreatLog};
use serde::{Deserialize, Serialize};

use super::kept::{Bounds, Kept, Record};

/// Threats that are kept: of a workload and, in bytes, of all.
pub(crate) const BOUNDS: Bounds = Bounds { records: 256, bytes: 24 << 20 };
/// What a threat takes besides its texts.
const FIXED: usize = 640;

/// A threat and which end reported it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Reported {
    /// What is shown.
    #[serde(flatten)]
    pub(crate) threat: Threat,
    /// The reporting workload is the server.
    pub(crate) inbound: bool,
    /// How many of its findings were told as events. All of them, where a bridge stored it that
    /// did not know the word.
    #[serde(default = "all")]
    told: u64,
    /// How many were decided on: told, or left to the server's word.
    #[serde(default = "all")]
    settled: u64,
}

fn all() -> u64 {
    u64::MAX
}

impl Record for Reported {
    fn last_seen(&self) -> u64 {
        self.threat.reported_at
    }

    fn size(&self) -> usize {
        let Threat { message, evidence, workload, client_ip, server_ip, name, .. } = &self.threat;
        let texts = [message, evidence, workload, client_ip, server_ip, name];
        texts
            .into_iter()
            .map(String::len)
            .fold(FIXED, usize::saturating_add)
    }
}

impl Reported {
    /// How many of its findings were told as events.
    pub(crate) fn told(&self) -> u64 {
        self.told.min(self.threat.count)
    }

    /// How many are not decided on.
    pub(super) fn open(&self) -> u64 {
        self.threat.count.saturating_sub(self.settled)
    }

    /// How many were left to the server's word.
    pub(super) fn covered(&self) -> u64 {
        let settled = self.settled.min(self.threat.count);
        settled.saturating_sub(self.told())
    }

    /// Decides on some more, of which so many are told.
    pub(super) fn settle(&mut self, more: u64, told: u64) {
        self.told = self.told().saturating_add(told);
        let settled = self.settled.min(self.threat.count);
        self.settled = settled.saturating_add(more);
    }

    /// Whether the server's proxy may have seen the same: it was let pass on.
    pub(super) fn was_passed_on(&self) -> bool {
        !self.inbound && self.threat.action == ALERT
    }

    /// How the keys begin that both ends of its flow have for it.
    pub(super) fn prefix(&self) -> String {
        let Threat { id, client_ip, server_ip, server_port, .. } = &self.threat;
        format!("{id} {client_ip} {server_ip}:{server_port} ")
    }

    /// What both ends of a flow report alike.
    fn flow(&self) -> (u32, &str, &str, u16) {
        let Threat { id, client_ip, server_ip, server_port, .. } = &self.threat;
        (*id, client_ip, server_ip, *server_port)
    }
}

/// What is to be shown: without what a client's proxy let pass on to a server whose own proxy
/// reports it too.
pub(crate) fn shown(kept: &Kept<Reported>) -> impl Iterator<Item = &Threat> {
    let all = || kept.iter().map(|(.., one)| one);
    let by_server: HashSet<_> = all()
        .filter(|one| one.inbound)
        .map(Reported::flow)
        .collect();
    all()
        .filter(move |one| !one.was_passed_on() || !by_server.contains(&one.flow()))
        .map(|one| &one.threat)
}

/// It was reported.
const ALERT: &str = "alert";
/// It was stopped.
const BLOCK: &str = "block";

/// A log of the workload `name`, with its key; `None` if its addresses make no sense.
pub(crate) fn read(log: &ThreatLog, name: &str) -> Option<(String, Reported)> {
    let source = (log.source()?.to_canonical(), log.src_port);
    let target = (log.destination()?.to_canonical(), log.dst_port);
    let (client, server) = if from_client(log.flags) { (source, target) } else { (target, source) };
    let threat = Threat {
        id: log.threat_id.0,
        name: log.threat_id.to_string(),
        severity: log.severity.severity().name().into(),
        workload: name.into(),
        client_ip: client.0.to_string(),
        client_port: client.1,
        server_ip: server.0.to_string(),
        server_port: server.1,
        app: log.application.to_string(),
        count: log.count.max(1).into(),
        action: if blocked(log) { BLOCK } else { ALERT }.into(),
        message: log.message.as_str().into_owned(),
        evidence: base64(&log.packet),
        reported_at: log.reported_at.into(),
    };
    let inbound = log.flags.contains(ThreatFlags::SESS_INGRESS);
    let reported = Reported { threat, inbound, told: 0, settled: 0 };
    let Threat { action, message, .. } = &reported.threat;
    let key = format!("{}{action} {message}", reported.prefix());
    Some((key, reported))
}

/// Adds up two logs of one key; the newest evidence stays.
pub(crate) fn merge(known: &mut Reported, mut fresh: Reported) {
    fresh.told = known.told();
    fresh.settled = known.settled.min(known.threat.count);
    fresh.threat.count = fresh.threat.count.saturating_add(known.threat.count);
    if fresh.threat.evidence.is_empty() {
        fresh.threat.evidence = std::mem::take(&mut known.threat.evidence);
    }
    *known = fresh;
}

/// Whether the logged packet went from the client to the server: it came in where the workload is
/// the server, or went out where it is the client.
fn from_client(flags: ThreatFlags) -> bool {
    flags.contains(ThreatFlags::PKT_INGRESS) == flags.contains(ThreatFlags::SESS_INGRESS)
}

fn blocked(log: &ThreatLog) -> bool {
    let stops = [ThreatAction::Drop, ThreatAction::Reset, ThreatAction::Block];
    stops.iter().any(|action| *action as u8 == log.action.0)
        && !log.flags.contains(ThreatFlags::TAP)
}

/// RFC 4648, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use outrider_model::{Severity, ThreatId};
    use outrider_wire::{SeverityCode, Text, ThreatActionCode};

    use super::*;

    fn log(flags: ThreatFlags) -> ThreatLog {
        ThreatLog {
            threat_id: ThreatId::SMUGGLING,
            reported_at: 9,
            count: 1,
            action: ThreatActionCode::from(ThreatAction::Drop),
            severity: SeverityCode::from(Severity::High),
            flags,
            src_ip: Ipv4Addr::new(10, 0, 0, 9).into(),
            dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
            src_port: 4000,
            dst_port: 80,
            message: Text::cut("two lengths"),
            packet: b"GET".to_vec(),
            ..ThreatLog::default()
        }
    }

    #[test]
    fn client_and_server_follow_from_both_directions() {
        let inbound = ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true);
        let (_, Reported { threat, .. }) = read(&log(inbound), "default/web").unwrap();
        assert_eq!((threat.client_ip.as_str(), threat.client_port), ("10.0.0.9", 4000));
        let (_, Reported { threat, .. }) =
            read(&log(ThreatFlags::SESS_INGRESS), "default/web").unwrap();
        assert_eq!((threat.client_ip.as_str(), threat.client_port), ("10.0.0.2", 80));
    }

    #[test]
    fn an_observed_workload_alerts_where_an_enforced_one_blocks() {
        let (key, Reported { threat, .. }) = read(&log(ThreatFlags::TAP), "default/web").unwrap();
        assert_eq!((threat.action.as_str(), threat.severity.as_str()), ("alert", "high"));
        let (other, Reported { threat, .. }) =
            read(&log(ThreatFlags::NONE), "default/web").unwrap();
        assert_eq!(threat.action, "block");
        assert_ne!(key, other);
    }

    #[test]
    fn a_flow_that_both_ends_report_is_shown_once_unless_the_client_was_stopped() {
        let mut kept = Kept::new(crate::store::Table::Threats, BOUNDS);
        let mut enter = |uid: &str, flags| {
            let (key, reported) = read(&log(flags), uid).unwrap();
            kept.enter(uid, key, reported, merge);
            shown(&kept)
                .map(|one| one.workload.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(enter("client", ThreatFlags::TAP), ["client"]);
        let inbound = ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true);
        assert_eq!(enter("server", inbound), ["server"]);
        assert_eq!(enter("client", ThreatFlags::NONE), ["client", "server"]);
    }

    #[test]
    fn repeated_logs_add_up_and_keep_evidence() {
        let (_, mut known) = read(&log(ThreatFlags::TAP), "w").unwrap();
        let later = ThreatLog { packet: vec![], count: 4, ..log(ThreatFlags::TAP) };
        merge(&mut known, read(&later, "w").unwrap().1);
        assert_eq!((known.threat.count, known.threat.evidence.as_str()), (5, "R0VU"));
    }

    #[test]
    fn what_an_earlier_bridge_stored_was_told() {
        let (_, fresh) = read(&log(ThreatFlags::TAP), "w").unwrap();
        let mut stored = serde_json::to_value(&fresh).unwrap();
        for word in ["told", "settled"] {
            assert!(stored.as_object_mut().unwrap().remove(word).is_some());
        }
        let mut known: Reported = serde_json::from_value(stored).unwrap();
        assert_eq!((known.told(), known.open()), (1, 0));
        merge(&mut known, fresh);
        assert_eq!((known.told(), known.open(), known.covered()), (1, 1, 0));
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
