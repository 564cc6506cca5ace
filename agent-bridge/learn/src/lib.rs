//! Conversations in, groups and rules with evidence out.
#![forbid(unsafe_code)]
