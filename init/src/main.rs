//! Puts a pod's traffic in front of the proxy.
#![forbid(unsafe_code)]

fn main() {}
