//! A bar for files that take a while.

use std::io::{self, IsTerminal, Write};

/// Below this, reading takes no time worth a bar.
const LARGE: u64 = 32 << 20;
/// Cells of the bar.
const WIDTH: usize = 40;

/// A bar on standard error, drawn again whenever a percent more is done.
#[derive(Debug)]
pub(super) struct Progress {
    size: u64,
    percent: u64,
    on: bool,
}

impl Progress {
    /// For a file of that size, if it is known, and if somebody looks.
    pub(super) fn new(size: Option<u64>) -> Self {
        let size = size.unwrap_or(0);
        Self { size, percent: 0, on: size >= LARGE && io::stderr().is_terminal() }
    }

    pub(super) fn show(&mut self, position: u64) {
        if !self.on {
            return;
        }
        let percent = position.saturating_mul(100) / self.size.max(1);
        if percent > self.percent {
            self.percent = percent.min(100);
            drop(write!(io::stderr(), "\r{}", bar(self.percent)));
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self) {
        if self.on && self.percent > 0 {
            drop(write!(io::stderr(), "\r{}\r", " ".repeat(bar(100).len())));
        }
        self.on = false;
    }
}

fn bar(percent: u64) -> String {
    let done = usize::try_from(percent)
        .unwrap_or(100)
        .min(100)
        .saturating_mul(WIDTH)
        / 100;
    format!(
        "reading [{}{}] {percent:3} %",
        "#".repeat(done),
        ".".repeat(WIDTH.saturating_sub(done))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_keeps_its_length() {
        assert!(bar(0).starts_with("reading [....") && bar(0).ends_with("]   0 %"));
        assert!(bar(100).ends_with("##] 100 %"));
        assert!((0..=100).all(|percent| bar(percent).len() == bar(0).len()));
    }

    #[test]
    fn small_and_unknown_sizes_have_none() {
        for size in [None, Some(1000)] {
            assert!(!Progress::new(size).on);
        }
    }
}
