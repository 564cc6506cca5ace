//! Puts a pod's traffic in front of the proxy: settings become a pure plan, the plan becomes text for the
//! kernel's tools, and the text is applied in one transaction per table.
//!
//! Reading order: [`settings`] (what was asked), [`plan`] (rules as data, with the reason of each),
//! [`render`] (the same rules as text), [`apply`] (tools and netlink),
//! [`verify`] (live probes), [`error`] (what can go wrong and what to do).
#![forbid(unsafe_code)]

pub mod apply;
pub mod cli;
pub mod error;
pub mod plan;
pub mod render;
pub mod settings;
pub mod verify;

pub use error::InitError;
