//! Queries with arguments.

use outrider_model::MacAddr;
use serde::Serialize;

use super::{fields::Fields, go};
use crate::{List, WireError};

/// Asks for the sum over workloads, unknown ones skipped.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct StatsMacs {
    /// The workloads.
    #[serde(serialize_with = "go::macs")]
    pub macs: List<MacAddr>,
}

impl StatsMacs {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { macs: fields.macs("macs")? })
    }
}

/// Ends sessions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct ClearSession {
    /// Which; 0 for every one.
    pub filter_id: u32,
}

impl ClearSession {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { filter_id: fields.u32("filter_id") })
    }
}
