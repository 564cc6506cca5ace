//! Injection: reviewed shapes of pods, and what holds for all of them.

#![cfg(test)]

#[path = "inject/apply.rs"]
mod apply;
#[path = "inject/change.rs"]
mod change;
#[path = "inject/golden.rs"]
mod golden;
#[path = "inject/properties.rs"]
mod properties;
