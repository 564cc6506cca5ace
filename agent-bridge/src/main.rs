//! The node's end: speaks to every proxy, learns, distributes policy.
#![forbid(unsafe_code)]

fn main() {}
