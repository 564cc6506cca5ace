//! Whether the tests of the real world can run here.

use std::io::Write as _;

use nix::unistd::geteuid;

/// Set to 1 to make a missing prerequisite fail the test instead of skipping it (CI does).
pub const REQUIRE: &str = "OUTRIDER_REQUIRE_NETNS";

/// Whether namespaces can be made. If not, says so where nobody can miss it; fails the test when
/// [`REQUIRE`] is set.
#[must_use]
pub fn netns() -> bool {
    if geteuid().is_root() {
        return true;
    }
    let why = "network namespaces and real iptables rules need root";
    let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(!required, "{REQUIRE}=1, but {why}");
    // Past the test harness, which shows the output of failed tests only.
    if let Ok(mut tty) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let _said = writeln!(tty, "SKIPPED {name}: {why}");
    }
    false
}

/// Returns from the test, loudly, when namespaces cannot be made.
#[macro_export]
macro_rules! require_netns {
    () => {
        if !$crate::require::netns() {
            return Ok(());
        }
    };
}
