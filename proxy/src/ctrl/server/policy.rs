//! The server's part in policy: when to compile, what to do with the result, what to keep on disk.

use std::{io, sync::Arc, time::Duration};

use tokio::{task::JoinError, time::Instant};
use tracing::{debug, error, info};

use super::Server;
use crate::{
    ctrl::{
        keep,
        swap::{Swap, Swapped, swap},
    },
    settings::FirstPolicy,
};

impl Server {
    /// Starts to compile what is wanted; what is asked for meanwhile is compiled afterwards.
    pub(super) fn compile(&mut self) {
        self.wanted_since = None;
        let desired = self.state.desired();
        let names = Arc::clone(&self.context.names);
        let version = self.context.policy.load().version.saturating_add(1);
        let relay = self.relay.clone();
        self.compiling
            .start(move || swap(desired, version, &names, &relay));
    }

    pub(super) fn compiled(&mut self, done: Result<Swap, JoinError>) {
        match done {
            Ok(Swap { law, result: Ok(swapped) }) => {
                self.state.accepted(&law);
                self.in_force(swapped);
            }
            Ok(Swap { law, result: Err(refused) }) => {
                self.context.ctrl.policy_refused(refused.reason(), &refused);
                self.ignored(refused.reason(), &refused);
                self.state.refused(&law);
                // What else was asked for at the same time holds without the refused policy.
                self.want_policy();
            }
            Err(error) => error!(%error, "compiling a policy failed, the one in force stays"),
        }
        self.greet_waiting();
    }

    fn in_force(&mut self, swapped: Swapped) {
        let Swapped { version, rules, judged, cut } = swapped;
        self.context.ctrl.policy_swapped(version, rules, cut);
        let mode = self.context.policy.load().mode;
        info!(
            version,
            mode = mode.name(),
            exact = rules.0,
            range = rules.1,
            judged,
            cut,
            "policy in force"
        );
        self.policy_known();
        self.unsaved = true;
        self.save();
    }

    /// Readiness may wait for a policy.
    pub(super) fn policy_known(&mut self) {
        self.context.ctrl.policy_in_force(self.state.policy_kind());
        let waits = self.context.settings.first_policy == FirstPolicy::Wait;
        if !waits || self.state.has_policy() {
            self.first_policy = None;
        }
    }

    fn save(&mut self) {
        if !self.unsaved || !self.saving.is_idle() {
            return;
        }
        self.unsaved = false;
        self.saving_since = Instant::now();
        let path = keep::path(&self.context.settings.state_dir);
        let journal = self.state.journal();
        self.saving
            .start(move || keep::save_journal(&path, journal.as_ref()));
    }

    pub(super) fn saved(&mut self, done: Result<io::Result<()>, JoinError>) {
        let result = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        match result {
            Ok(()) => debug!("policy kept"),
            Err(error) => {
                self.context.ctrl.save_failed();
                self.warn_once("policy-not-kept", &error);
            }
        }
        self.save();
        self.greet_waiting();
    }

    /// Whether the policy in force is on disk, or cannot be: a disk that hangs keeps nobody waiting for long.
    pub(super) fn is_kept(&self) -> bool {
        self.saving.is_idle() && !self.unsaved || self.saving_since.elapsed() >= SAVE_TIME
    }
}

/// How long a save is waited for.
const SAVE_TIME: Duration = Duration::from_secs(5);
