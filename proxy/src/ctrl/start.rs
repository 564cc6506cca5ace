//! The policy to begin with: the last one on disk, else the default mode.

use outrider_relay::PolicyView;
use tracing::{info, warn};

use super::{keep, policy::Refused, state::State, swap::compile};
use crate::{
    identity::Identity,
    settings::{CaptureChoice, Settings},
};

/// State and policy of a proxy that starts.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// What is configured.
    pub state: State,
    /// What is in force.
    pub view: PolicyView,
}

/// Reads the last policy and compiles it. One that cannot be read or compiled is as if it were not
/// there: the default mode decides, and the log says why.
pub(crate) fn begin(settings: &Settings, identity: &Identity) -> Result<Beginning, Refused> {
    let fresh = || {
        let state = State::new(identity.macs(), settings.default_mode);
        if settings.capture == CaptureChoice::None { state.adopting() } else { state }
    };
    let beginning = restored(fresh(), settings).map_or_else(|| in_force(fresh()), Ok)?;
    let Beginning { state, view } = &beginning;
    info!(
        mode = view.mode.name(),
        managed = view.managed,
        kept = state.has_policy(),
        "policy to begin with"
    );
    Ok(beginning)
}

fn restored(mut state: State, settings: &Settings) -> Option<Beginning> {
    let path = keep::path(&settings.state_dir);
    let requests = keep::load(&path)
        .inspect_err(|error| warn!(%error, path = %path.display(), "kept policy not read"))
        .ok()??;
    for request in requests {
        if let Err(error) = state.apply(request) {
            warn!(%error, "kept policy not understood, starting without it");
            return None;
        }
    }
    in_force(state)
        .inspect_err(|error| warn!(%error, "kept policy does not compile, starting without it"))
        .ok()
}

fn in_force(mut state: State) -> Result<Beginning, Refused> {
    let desired = state.desired();
    let view = compile(&desired, FIRST_VERSION)?;
    state.accepted(&desired.law);
    Ok(Beginning { state, view })
}

/// The first snapshot's number.
const FIRST_VERSION: u64 = 1;
