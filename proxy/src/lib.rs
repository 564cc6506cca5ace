//! The sidecar: settings, assembly, ctrl server, admin surface, drain.
//!
//! `main` reads the [`settings`] and hands them to [`assembly`], which binds the listeners, starts
//! the threads of [`ctrl`] and [`admin`], accepts until it is told to stop, and drains.
#![forbid(unsafe_code)]

mod admin;
pub mod assembly;
mod context;
mod ctrl;
mod dns;
pub mod hooks;
mod identity;
pub mod packets;
mod readiness;
mod recorder;
mod rights;
pub mod settings;
mod status;
mod survive;
#[cfg(test)]
mod testing;
