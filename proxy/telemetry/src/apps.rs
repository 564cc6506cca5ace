//! What the workload's own ports speak, learned from the flows it serves.

use std::collections::BTreeMap;

use outrider_model::{AppId, IpProto};

/// Ports remembered; as many as one APP_UPDATE datagram carries.
pub const MAX_APP_PORTS: usize = 818;

/// What one port speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AppPort {
    /// Base protocol, for example HTTP.
    pub proto: AppId,
    /// Server software, for example nginx.
    pub server: AppId,
    /// Application, for example Redis.
    pub app: AppId,
    /// Listed by the agent: it goes when the agent no longer lists it.
    pub listed: bool,
}

/// The ports of one workload.
#[derive(Debug, Default)]
pub struct AppTable {
    ports: BTreeMap<(IpProto, u16), AppPort>,
    changed: bool,
    refused: u64,
}

impl AppTable {
    /// A served flow on `port` was identified. A full table refuses new ports and counts them.
    pub fn learn(&mut self, proto: IpProto, port: u16, app: AppId) {
        let Some(entry) = self.entry(proto, port) else { return };
        let field = if app.is_base() { &mut entry.proto } else { &mut entry.app };
        let changed = *field != app;
        *field = app;
        self.changed |= changed;
    }

    /// The server's software showed itself on `port`.
    pub fn learn_server(&mut self, proto: IpProto, port: u16, server: AppId) {
        let Some(entry) = self.entry(proto, port) else { return };
        let changed = entry.server != server;
        entry.server = server;
        self.changed |= changed;
    }

    /// Takes the agent's complete list: new ports are added with their values, ports that only an older list named are
    /// removed, what was learned stays.
    pub fn list(&mut self, listed: impl IntoIterator<Item = ((IpProto, u16), AppPort)>) {
        let mut known = std::mem::take(&mut self.ports);
        for (key, port) in listed {
            let port = AppPort { listed: true, ..known.remove(&key).unwrap_or(port) };
            if self.ports.len() < MAX_APP_PORTS {
                self.ports.insert(key, port);
            } else {
                self.refused += 1;
            }
        }
        known.retain(|_, port| !port.listed);
        self.ports.extend(known);
    }

    fn entry(&mut self, proto: IpProto, port: u16) -> Option<&mut AppPort> {
        if self.ports.len() >= MAX_APP_PORTS && !self.ports.contains_key(&(proto, port)) {
            self.refused += 1;
            return None;
        }
        Some(self.ports.entry((proto, port)).or_default())
    }

    /// All ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = ((IpProto, u16), AppPort)> + '_ {
        self.ports.iter().map(|(key, port)| (*key, *port))
    }

    /// Whether something changed since the last call.
    #[must_use]
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Ports not taken in because the table was full.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}
