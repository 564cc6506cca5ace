//! The demo.
#![forbid(unsafe_code)]
fn main() {}
