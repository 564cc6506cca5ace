//! outrider, the command line for people.
#![forbid(unsafe_code)]

fn main() {}
