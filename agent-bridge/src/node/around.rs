//! Networks and addresses around the workloads: from the settings, and from whoever else knows.

use super::{Node, State};
use crate::{pods::Surroundings, settings::Settings};

/// What each source says.
#[derive(Debug, Default)]
pub(super) struct Sources {
    settings: Surroundings,
    api_server: Surroundings,
}

impl Sources {
    pub(super) fn of_settings(settings: &Settings) -> Self {
        let canonical =
            |all: &[std::net::IpAddr]| all.iter().map(|one| one.to_canonical()).collect();
        let settings = Surroundings {
            hosts: canonical(&settings.hosts),
            tunnels: canonical(&settings.tunnels),
            internal: settings.internal.iter().copied().collect(),
        };
        Self { settings, ..Self::default() }
    }

    fn all(&self) -> Surroundings {
        let mut all = self.settings.clone();
        let Surroundings { hosts, tunnels, internal } = &self.api_server;
        all.hosts.extend(hosts);
        all.tunnels.extend(tunnels);
        all.internal.extend(internal);
        all
    }
}

impl Node {
    /// What the API server says of our node.
    pub(crate) fn surrounded_by(&self, found: Surroundings) {
        let mut state = self.state.lock();
        if state.surroundings.api_server != found {
            state.surroundings.api_server = found;
            state.look_around();
            state.roster_changed();
        }
    }
}

impl State {
    /// Takes over what anybody says of the surroundings.
    pub(super) fn look_around(&mut self) {
        let mut all = self.surroundings.all();
        all.internal.extend(self.cluster.kept.internal());
        self.roster.surround(&all);
        let internal = self.roster.internal();
        let directory = self.learner.directory_mut();
        directory.set_hosts(all.hosts.iter().copied());
        directory.set_tunnels(all.tunnels.iter().copied());
        directory.set_internal(internal);
    }
}
