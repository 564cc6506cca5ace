//! What `--help` teaches.

use crate::{controller, settings::help, webhook};

/// What follows the usage of `outrider-agent-bridge bridge`.
#[must_use]
pub fn bridge() -> String {
    let all: Vec<_> = help().copied().collect();
    table("Settings (environment) [default]:", &all) + MAILBOXES
}

/// What follows the usage of `outrider-agent-bridge controller`.
#[must_use]
pub fn controller() -> String {
    table("Settings (environment) [default]:", &controller::settings::HELP)
}

/// What follows the usage of `outrider-agent-bridge webhook`.
#[must_use]
pub fn webhook() -> String {
    let keys: Vec<_> = webhook::settings::keys().collect();
    let settings = table("Settings (environment) [default]:", &webhook::settings::HELP);
    settings + LABELS + &table("Annotations, outrider.dev/... [default]:", &keys)
}

fn table<T: AsRef<str>>(title: &str, rows: &[(&str, &str, T)]) -> String {
    let width = rows
        .iter()
        .map(|(key, ..)| key.len())
        .max()
        .unwrap_or_default();
    let mut text = format!("{title}\n");
    for (key, default, about) in rows {
        let about = about.as_ref();
        text.push_str(&format!("  {key:width$}  {about} [{default}]\n"));
    }
    text
}

const LABELS: &str = "
Labels:
  outrider.dev/injection  of a namespace: enforced, enabled, opt-in or disabled
  outrider.dev/inject     of a pod: \"true\" or \"false\"

";

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
    fn the_webhook_shows_settings_and_annotations() {
        let text = webhook();
        for (key, ..) in webhook::settings::HELP {
            assert!(text.contains(key), "{key}");
        }
        for key in crate::inject::keys::KEYS {
            assert!(text.contains(key.name) && text.contains(key.form), "{}", key.name);
        }
    }

    #[test]
    fn shows_every_setting_with_its_default() {
        let text = bridge();
        for (key, default, _) in help() {
            assert!(text.contains(*key) && text.contains(*default), "{key}");
        }
    }
}
