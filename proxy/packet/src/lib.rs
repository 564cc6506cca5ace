//! Frames in, sessions and ordered streams out: what the tap and `outrider inspect` share.
//!
//! An [`Engine`] takes frames with the time they were seen, decodes them, puts fragments together,
//! keeps a bounded table of flows, and says what it finds as [`Event`]s: flows that open and close,
//! the bytes of each side in their order, what was lost, what is malformed. It does no I/O and reads
//! no clock; the caller feeds the bytes to an inspector. What it could not see it says, and never
//! guesses.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

#[cfg(any(test, feature = "test-util"))]
pub mod build;
mod counters;
mod engine;
mod event;
mod flow;
pub mod forge;
mod fragment;
mod icmp;
mod ip;
mod limits;
mod link;
mod meter;
mod record;
mod servers;
mod stream;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod transport;

pub use counters::Counters;
pub use engine::{Engine, Frame, Peek};
pub use event::{Ends, Event};
pub use limits::Limits;
pub use link::LinkType;
pub use meter::{
    MAX_METERS, MAX_TARGETS, MeterKind, MeterLimit, MeterLog, MeterState, Meters, Reading,
};
pub use record::{FlowEnd, FlowRecord, SidePlace, SideRecord, TcpPlace};
