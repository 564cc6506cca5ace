//! One flow's life: dial, copy, inspect, decide, close.
#![forbid(unsafe_code)]
