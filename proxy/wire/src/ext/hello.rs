//! `ctrl_outrider_hello`, `ctrl_outrider_ack` and `ctrl_outrider_stop`, ours.

use serde::Serialize;

use super::Instance;
use crate::{WireError, request::fields::Fields};

/// The bridge is here: asks for [`crate::ext::Status`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// Version of these extensions: [`Self::VERSION`].
    pub version: u32,
    /// Whether the bridge acknowledges batches.
    pub acks: bool,
}

impl Hello {
    /// The version of this build.
    pub const VERSION: u32 = 1;

    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { version: fields.u32("version"), acks: fields.is_true("acks") })
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self { version: Self::VERSION, acks: true }
    }
}

/// A [`crate::ext::Batch`] is stored: the proxy may forget it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Ack {
    /// Which run of the proxy.
    pub instance: Instance,
    /// Number of the batch in that run.
    pub seq: u64,
}

impl Ack {
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let seq = fields.u64("seq").ok_or(WireError::Missing("seq"))?;
        Ok(Self { instance: instance(fields)?, seq })
    }
}

/// Everything else in the pod has ended for good: this run of the proxy is to finish its flows, tell what it
/// has not told yet, and end well.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Stop {
    /// Which run of the proxy.
    pub instance: Instance,
}

impl Stop {
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { instance: instance(fields)? })
    }
}

fn instance(fields: Fields<'_>) -> Result<Instance, WireError> {
    Instance::parse(fields.text("instance")?).ok_or(WireError::BadValue("instance"))
}
