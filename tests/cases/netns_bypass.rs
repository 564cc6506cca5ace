//! Ways past the proxy, each really gone, each found; and an honest pod, of which nothing is found.

#[path = "netns_bypass/honest.rs"]
mod honest;
#[path = "netns_bypass/observe.rs"]
mod observe;
#[path = "netns_bypass/tricks.rs"]
mod tricks;

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_tests::{Pod, until};

/// How soon a way past the proxy is found: two looks at the sockets, and some load.
const FOUND: Duration = Duration::from_secs(20);

/// Findings of a kind so far.
fn findings(pod: &Pod, trick: &str) -> Result<f64> {
    Ok(pod
        .metrics()?
        .sum("outrider_bypass_findings_total", &[("trick", trick)]))
}

/// Does something and waits until one of these kinds is found.
fn found(pod: &Pod, tricks: &[&str], act: impl FnOnce() -> Result<()>) -> Result<()> {
    let count = || {
        tricks
            .iter()
            .map(|trick| findings(pod, trick))
            .sum::<Result<f64>>()
    };
    let before = count()?;
    act()?;
    until(&format!("{tricks:?}"), FOUND, || {
        let now = count()?;
        ensure!(now > before, "still {now}");
        Ok(())
    })
}
