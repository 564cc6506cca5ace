//! Black box: benchmarks side by side, a real cluster.
#![forbid(unsafe_code)]
