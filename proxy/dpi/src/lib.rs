//! Bytes in, events out: identification, protocol parsers, threat detectors.
//!
//! A [`FlowInspector`] takes the bytes of one TCP flow as they pass and says what it learns from
//! them: the application, names, requests, threats. It does no I/O, never panics on what a peer
//! sends, holds a bounded number of bytes, and where the bytes are cut never changes what it says.
//! A [`DatagramInspector`] does the same for a UDP flow, a [`PassiveInspector`] for either where packets are
//! only seen and some may be missing.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bytes;
mod config;
mod datagram;
mod dns;
mod event;
mod flow;
mod http;
mod http2;
mod inspector;
mod mysql;
mod passive;
mod postgres;
mod recognise;
mod redis;
#[cfg(any(test, feature = "test-util"))]
pub mod replay;
mod ssh;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;

pub use config::DpiConfig;
#[cfg(any(test, feature = "test-util"))]
pub use datagram::quic_initial;
pub use datagram::{DatagramInspector, MAX_TRIES};
pub use dns::message as dns_message;
pub use event::{Event, Finding, Interest, MAX_MESSAGE, MAX_NAME, Need};
pub use flow::{FlowInspector, MAX_HELD};
pub use passive::PassiveInspector;
