//! How much a report may hold.

use std::str::FromStr;

use outrider_telemetry::HARD_MAX_ROWS;

/// Connection rows that wait for a bridge at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReportRows(pub(super) usize);

impl Default for ReportRows {
    fn default() -> Self {
        Self(HARD_MAX_ROWS)
    }
}

impl FromStr for ReportRows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rows = text.parse().ok();
        rows.filter(|rows| (LEAST..=HARD_MAX_ROWS).contains(rows))
            .map(Self)
            .ok_or_else(|| format!("a number from {LEAST} to {HARD_MAX_ROWS}"))
    }
}

const LEAST: usize = 16;
