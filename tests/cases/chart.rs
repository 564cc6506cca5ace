//! The chart, rendered by real Helm: what it makes of values, what it refuses, and that its words are true.
//!
//! Helm comes from PyPI when it is first used. Where that cannot be, this says SKIPPED.
//! `OUTRIDER_BLESS=1` writes what was reviewed anew.

#![cfg(test)]

#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/monitoring.rs"]
mod monitoring;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "chart/values.rs"]
mod values;
