//! What two data paths said, put so that it can be compared: without what depends on time, on chance, or on how
//! traffic reaches them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use outrider_model::{AppId, IpProto, MacAddr, names};
use outrider_tests::{Pod, until};
use outrider_wire::{
    Connection, ConnectionFlags, EtherType, Notification, Reply, Session, SessionFlags, ThreatLog,
};
use parking_lot::Mutex;
use serde_json::Value;

use super::{PATIENCE, corpus};

/// One session, as far as it has to be the same.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Kept {
    ends: (Option<IpAddr>, Option<IpAddr>),
    port: u16,
    proto: IpProto,
    icmp: (u8, u8),
    own_mac: MacAddr,
    app: AppId,
    threat: (u32, u8),
    /// IPv6 is judged here, and by the real one never.
    policy: Option<(u32, u8)>,
    flags: u16,
}

/// A list of sessions.
pub(crate) struct Sessions(Vec<Session>);

impl Sessions {
    pub(crate) fn read(datagrams: &[Vec<u8>]) -> Result<Self> {
        let mut all = Vec::new();
        for datagram in datagrams {
            let Reply::SessionList(list) = Reply::decode_exact(datagram)? else { continue };
            all.extend(list.sessions);
        }
        Ok(Self(all))
    }

    /// Those of one workload.
    pub(crate) fn of(self, mac: MacAddr) -> BTreeSet<Kept> {
        let own = self.0.iter().filter(|session| session.epmac == mac);
        own.map(kept).collect()
    }
}

fn kept(session: &Session) -> Kept {
    let inbound = session.flags.contains(SessionFlags::INGRESS);
    let v6 = session.ether_type == EtherType::IPV6;
    let judged = (session.policy_id.0, session.policy_action.0);
    Kept {
        ends: (session.client_addr(), session.server_addr()),
        port: session.server_port,
        proto: session.ip_proto,
        icmp: (session.icmp_code, session.icmp_type),
        own_mac: if inbound { session.server_mac } else { session.client_mac },
        app: session.application,
        threat: (session.threat_id.0, session.severity.0),
        policy: (!v6).then_some(judged),
        flags: session.flags.0 & if v6 { SEEN } else { u16::MAX },
    }
}

/// Flags that do not come of judging.
const SEEN: u16 = SessionFlags::INGRESS.0 | SessionFlags::TAP.0;

/// Meters of one number count the same span and act at the same limits.
pub(crate) fn same_meters(found: &[Vec<u8>], golden: &[Vec<u8>]) -> Result<()> {
    let read = |datagrams: &[Vec<u8>]| -> Result<BTreeSet<_>> {
        let mut all = BTreeSet::new();
        for datagram in datagrams {
            let Reply::MeterList(list) = Reply::decode_exact(datagram)? else { continue };
            let limits = list
                .meters
                .iter()
                .map(|meter| (meter.meter_id.0, meter.span, meter.upper_limit, meter.lower_limit));
            all.extend(limits);
        }
        Ok(all)
    };
    let (found, real) = (read(found)?, read(golden)?);
    for meter in &found {
        let known = real
            .iter()
            .filter(|other| other.0 == meter.0)
            .collect::<Vec<_>>();
        ensure!(known.is_empty() || known.contains(&meter), "{meter:?} of {real:?}");
    }
    Ok(())
}

/// Key of a conversation: its ends, server port, protocol, application, and whether it came in.
type Key = (Option<IpAddr>, Option<IpAddr>, u16, IpProto, AppId, bool);

/// What came of it: sessions, whether it violated, rules and actions, flags, threat and severity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Row {
    sessions: u32,
    violates: bool,
    judged: BTreeSet<(u32, u8)>,
    flags: u16,
    threat: (u32, u8),
}

/// Everything that was told without being asked for.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Notification>>>);

impl Told {
    /// Reads a pod's notifications from now on, on a thread that ends with the process.
    pub(crate) fn listen(pod: &Pod) -> Result<Self> {
        let path = pod.mailbox.join(names::CTRL_LISTEN);
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let told = Self::default();
        let notes = Arc::clone(&told.0);
        thread::spawn(move || {
            let mut buffer = vec![0; 9000];
            while let Ok(length) = socket.recv(&mut buffer) {
                let note = Notification::decode_exact(&buffer[..length]);
                notes.lock().push(note.expect("a notification"));
            }
        });
        Ok(told)
    }

    /// What a transcript has.
    pub(crate) fn of(lines: &[Value]) -> Result<Self> {
        let told = Self::default();
        for line in lines.iter().filter(|line| line["socket"] == "ctrl_listen") {
            let bytes = corpus::unhex(line["hex"].as_str().context("bytes")?)?;
            told.0.lock().push(Notification::decode_exact(&bytes)?);
        }
        Ok(told)
    }

    /// Waits until everything that the real one told of a pod was told here.
    pub(crate) fn comes_to(&self, real: &Self, pod: &Pod) -> Result<()> {
        let mac = pod.addresses.mac.parse()?;
        until("what the real one told", PATIENCE, || {
            same_rows(&self.rows(mac), &real.rows(mac))?;
            let (found, wanted) = (self.ports(mac), real.ports(mac));
            ensure!(found == wanted, "ports: {found:?} instead of {wanted:?}");
            let (found, wanted) = (self.threats(mac), real.threats(mac));
            ensure!(found == wanted, "threats: {found:?} instead of {wanted:?}");
            let is_of_one = pod.name == "one";
            let (found, wanted) = (self.names(), real.names());
            ensure!(!is_of_one || found == wanted, "names: {found:?} instead of {wanted:?}");
            Ok(())
        })
    }

    /// Waits until a name was told.
    pub(crate) fn knows(&self, name: &str) -> Result<()> {
        until("a name", PATIENCE, || {
            ensure!(self.names().iter().any(|told| told.ends_with(name)), "{:?}", self.names());
            Ok(())
        })
    }

    /// Waits until a row of a rule was told.
    pub(crate) fn has_met(&self, rule: u32) -> Result<()> {
        until("a rule", PATIENCE, || {
            let notes = self.0.lock();
            let mut rows = notes.iter().filter_map(|note| match note {
                Notification::Connections(list) => Some(&list.rows),
                _ => None,
            });
            let met = rows.any(|rows| rows.iter().any(|row| row.policy_id.0 == rule));
            ensure!(met, "{rule} is in none of {} notifications", notes.len());
            Ok(())
        })
    }

    fn rows(&self, mac: MacAddr) -> BTreeMap<Key, Row> {
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        for note in self.0.lock().iter() {
            let Notification::Connections(list) = note else { continue };
            for row in list
                .rows
                .iter()
                .filter(|row| row.epmac == mac && is_comparable(row))
            {
                let key = (
                    row.client(),
                    row.server(),
                    row.server_port,
                    row.ip_proto,
                    row.application,
                    row.flags.contains(ConnectionFlags::INGRESS),
                );
                rows.entry(key).or_default().add(row);
            }
        }
        rows
    }

    fn ports(&self, mac: MacAddr) -> BTreeMap<(IpProto, u16), (AppId, AppId, AppId)> {
        let mut ports = BTreeMap::new();
        for note in self.0.lock().iter() {
            let Notification::AppUpdate(update) = note else { continue };
            for port in update.ports.iter().filter(|_| update.mac == mac) {
                let apps = (port.proto, port.server, port.application);
                ports.insert((port.ip_proto, port.port), apps);
            }
        }
        ports
    }

    fn threats(&self, mac: MacAddr) -> BTreeSet<String> {
        let notes = self.0.lock();
        let logs = notes.iter().filter_map(|note| match note {
            Notification::ThreatLog(log) if log.epmac == mac => Some(threat(log)),
            _ => None,
        });
        logs.collect()
    }

    fn names(&self) -> BTreeSet<String> {
        let notes = self.0.lock();
        let names = notes.iter().filter_map(|note| match note {
            Notification::FqdnUpdate(all) => {
                Some(format!("{} {:?}", all.name.as_str(), all.addresses))
            }
            Notification::IpFqdnUpdate(one) => Some(format!("{} {}", one.ip, one.name.as_str())),
            _ => None,
        });
        names.collect()
    }
}

/// Quarantine is silent in the real one and told here: what it refused may be there besides.
fn same_rows(found: &BTreeMap<Key, Row>, real: &BTreeMap<Key, Row>) -> Result<()> {
    for (key, row) in real {
        let own = found
            .get(key)
            .with_context(|| format!("{key:?} is missing"))?;
        let mut but_refused = own.clone();
        if !row.judged.contains(&REFUSED) && but_refused.judged.remove(&REFUSED) {
            but_refused.violates = row.violates;
        }
        ensure!(but_refused == *row, "{key:?}: {own:?} instead of {row:?}");
    }
    let refused = BTreeSet::from([REFUSED]);
    let mut more = found.iter().filter(|(key, _)| !real.contains_key(*key));
    ensure!(more.all(|(_, row)| row.judged == refused), "{found:?} and {real:?}");
    Ok(())
}

/// No rule, DENY.
const REFUSED: (u32, u8) = (0, 7);

/// Rows of X-Forwarded-For are not told here, and of IPv6 not by the real one.
fn is_comparable(row: &Connection) -> bool {
    row.ether_type == EtherType::IPV4 && !row.flags.contains(ConnectionFlags::XFF)
}

impl Row {
    fn add(&mut self, row: &Connection) {
        // Whether a refused packet began a session depends on who refuses it.
        let judged = (row.policy_id.0, row.policy_action.0);
        // How many pings are one session depends on their pace.
        let counts = judged != REFUSED && !row.ip_proto.is_icmp();
        self.sessions += if counts { row.sessions } else { 0 };
        self.violates |= row.violates > 0;
        self.judged.insert(judged);
        self.flags = row.flags.0;
        if row.severity.0 > self.threat.1 {
            self.threat = (row.threat_id.0, row.severity.0);
        }
    }
}

fn threat(log: &ThreatLog) -> String {
    format!(
        "{} action {} severity {} flags {} proto {} {:?} {:?} icmp {}/{} app {}",
        log.threat_id.0,
        log.action.0,
        log.severity.0,
        log.flags.0,
        log.ip_proto.0,
        log.source(),
        log.destination(),
        log.icmp_type,
        log.icmp_code,
        log.application.0,
    )
}
