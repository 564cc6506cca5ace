//! The bridge's REST types.
#![forbid(unsafe_code)]
