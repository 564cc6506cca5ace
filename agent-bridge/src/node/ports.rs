//! What workloads listen on, as their proxies tell it, and by what names they know addresses.

use std::{collections::BTreeMap, net::IpAddr};

use outrider_api::ListeningPort;
use outrider_model::{AppId, IpProto};
use outrider_telemetry::unix_seconds;
use outrider_wire::{AppPort, AppUpdate, Notification};

use super::State;
use crate::{
    counts::{Counts, Dropped, Received},
    mailbox::watch::Workload,
};

/// Listening ports kept per workload; more are refused and counted.
const MAX_PORTS: usize = 1024;
/// Listening ports of all workloads. What is free is shared: one may have a quarter of it.
const MAX_ALL_PORTS: usize = 65_536;
/// Listening ports that a workload may have however many the others have.
const MIN_PORTS: usize = 64;
/// A workload may have this part of what is free.
const SHARE: usize = 4;

/// Listening ports of one workload. A table may come in several datagrams, so they add up.
#[derive(Debug, Default)]
pub(super) struct Ports(BTreeMap<(IpProto, u16), AppPort>);

impl Ports {
    /// Enters a table, as far as there is room for `most`; says how many of it there was none for.
    fn enter(&mut self, ports: &[AppPort], most: usize) -> u64 {
        let mut refused = 0;
        for port in ports {
            let key = (port.ip_proto, port.port);
            if self.0.len() < most || self.0.contains_key(&key) {
                self.0.insert(key, *port);
            } else {
                refused += 1;
            }
        }
        refused
    }

    /// What a port speaks, as far as that is known.
    pub(super) fn app(&self, proto: IpProto, port: u16) -> Option<AppId> {
        self.0.get(&(proto, port)).and_then(app)
    }

    /// All of them, in order of protocol and port.
    pub(super) fn listed(&self) -> Vec<ListeningPort> {
        self.0.values().map(listed).collect()
    }
}

/// How many ports a workload may have while all have so many.
fn allowance(all: usize) -> usize {
    (MAX_ALL_PORTS.saturating_sub(all) / SHARE).clamp(MIN_PORTS, MAX_PORTS)
}

fn listed(port: &AppPort) -> ListeningPort {
    ListeningPort {
        proto: port.ip_proto.to_string(),
        port: port.port,
        app: app(port).unwrap_or(AppId::UNKNOWN).to_string(),
        server: known(port.server).map_or_else(String::new, |server| server.to_string()),
    }
}

/// The application, or else its protocol.
fn app(port: &AppPort) -> Option<AppId> {
    known(port.application).or_else(|| known(port.proto))
}

fn known(app: AppId) -> Option<AppId> {
    (app != AppId::UNKNOWN).then_some(app)
}

impl State {
    /// Enters what a workload listens on.
    pub(super) fn enter_ports(&mut self, workload: &Workload, update: &AppUpdate, counts: &Counts) {
        counts.received(Received::AppUpdates, 1);
        let all: usize = self.ports.values().map(|ports| ports.0.len()).sum();
        let ports = self.ports.entry(workload.uid.clone()).or_default();
        counts.dropped(Dropped::PortsFull, ports.enter(&update.ports, allowance(all)));
    }

    /// What a flow speaks: where its proxy saw no application, what the server's port is known to speak.
    pub(super) fn spoken(
        &self,
        server: &Workload,
        (proto, port): (IpProto, u16),
        app: AppId,
    ) -> AppId {
        let ports = if app == AppId::UNKNOWN { self.ports.get(&server.uid) } else { None };
        ports
            .and_then(|ports| ports.app(proto, port))
            .unwrap_or(app)
    }

    /// Enters what is about names of addresses, and nothing else.
    pub(super) fn enter_names(
        &mut self,
        workload: &Workload,
        note: &Notification,
        counts: &Counts,
    ) {
        let now = unix_seconds();
        let names = self.learner.directory_mut().names_mut();
        let evicted = names.evicted();
        let mut add = |ip: IpAddr, name: &str| {
            let is_name = names.add(&workload.uid, ip, name, now);
            counts.dropped(Dropped::BadRow, (!is_name).into());
        };
        match note {
            Notification::FqdnUpdate(update) => {
                let name = update.name.as_str();
                update
                    .addresses
                    .iter()
                    .for_each(|ip| add((*ip).into(), &name));
            }
            Notification::IpFqdnUpdate(update) => add(update.ip.into(), &update.name.as_str()),
            Notification::IpFqdnRelease(release) => {
                names.end(&workload.uid, release.ip.into(), now);
            }
            _ => return,
        }
        counts.received(Received::Names, 1);
        counts.dropped(Dropped::NamesFull, names.evicted().saturating_sub(evicted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, application: AppId) -> AppPort {
        AppPort {
            port: number,
            proto: AppId::HTTP,
            server: AppId::UNKNOWN,
            application,
            ip_proto: IpProto::TCP,
        }
    }

    #[test]
    fn tables_add_up_and_are_bounded() {
        let mut ports = Ports::default();
        assert_eq!(
            ports.enter(&[port(80, AppId::UNKNOWN), port(6379, AppId::REDIS)], MAX_PORTS),
            0
        );
        let apps = |ports: &Ports| {
            let listed = ports.listed().into_iter();
            listed.map(|one| (one.port, one.app)).collect::<Vec<_>>()
        };
        let (http, redis) = (AppId::HTTP.to_string(), AppId::REDIS.to_string());
        assert_eq!(apps(&ports), [(80, http), (6379, redis.clone())], "or else the protocol");
        assert_eq!(ports.enter(&[port(80, AppId::REDIS)], MAX_PORTS), 0);
        assert_eq!(apps(&ports), [(80, redis.clone()), (6379, redis)], "the newest word counts");
        let many: Vec<_> = (10_000..12_000)
            .map(|at| port(at, AppId::UNKNOWN))
            .collect();
        assert_eq!(ports.enter(&many, MAX_PORTS), 2_002 - MAX_PORTS as u64);
        assert_eq!(ports.listed().len(), MAX_PORTS);
        assert_eq!((allowance(0), allowance(MAX_ALL_PORTS)), (MAX_PORTS, MIN_PORTS));
        assert_eq!(allowance(MAX_ALL_PORTS - 400), 100);
    }
}
