//! What `--help` teaches.

use crate::{controller, export, settings::HELP};

/// What follows the usage of `outrider-agent-bridge bridge`.
#[must_use]
pub fn bridge() -> String {
    let all = || HELP.iter().chain(&controller::HELP).chain(&export::HELP);
    let width = all().map(|(key, ..)| key.len()).max().unwrap_or_default();
    let mut text = String::from("Settings (environment) [default]:\n");
    for (key, default, about) in all() {
        text.push_str(&format!("  {key:width$}  {about} [{default}]\n"));
    }
    text.push_str(MAILBOXES);
    text
}

const MAILBOXES: &str = "
A pod is served when the mailbox root holds a directory <uid>/, owned by uid and gid 1771 with mode
0700 and mounted into the pod as OUTRIDER_CTRL_DIR, and beside it the file <uid>.json:

  {\"uid\":\"...\",\"name\":\"cache\",\"namespace\":\"default\",\"service\":\"cache\",
   \"addresses\":[\"10.0.0.2\",\"fd00::2\"],\"mac\":\"0a:58:0a:00:00:02\",\"labels\":{}}

Look around with `outrider status`, `outrider workloads`, `outrider conversations`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_setting_with_its_default() {
        let text = bridge();
        for (key, default, _) in HELP {
            assert!(text.contains(key) && text.contains(default), "{key}");
        }
    }
}
