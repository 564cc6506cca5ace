//! The sidecar: settings, assembly, ctrl server, admin surface, drain.
#![forbid(unsafe_code)]

fn main() {}
