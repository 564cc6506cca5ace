//! The agent's debug categories as a filter of our log.

use std::collections::BTreeSet;

/// Adds to a filter what the categories ask for; unknown ones ask for nothing.
#[must_use]
pub(crate) fn filter(base: &str, categories: &BTreeSet<String>) -> String {
    let wanted = categories.iter().filter_map(|category| directive(category));
    let mut directives: BTreeSet<_> = wanted.collect();
    if directives.contains(EVERYTHING) {
        directives = BTreeSet::from([EVERYTHING]);
    }
    [base]
        .into_iter()
        .chain(directives)
        .collect::<Vec<_>>()
        .join(",")
}

fn directive(category: &str) -> Option<&'static str> {
    Some(match category {
        "all" => EVERYTHING,
        "ctrl" | "timer" => "outrider_proxy=debug",
        "packet" => "outrider_capture=debug",
        "session" | "tcp" => "outrider_relay=debug,access=debug",
        "parser" | "ddos" | "dlp" => "outrider_dpi=debug",
        "policy" => "outrider_policy=debug",
        "log" => "outrider_telemetry=debug",
        _ => return None,
    })
}

const EVERYTHING: &str = "debug";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(categories: &[&str]) -> String {
        filter("info", &categories.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn adds_the_rooms_that_the_categories_mean() {
        assert_eq!(of(&["tcp", "session"]), "info,outrider_relay=debug,access=debug");
        assert_eq!(of(&["all", "policy"]), "info,debug");
    }

    #[test]
    fn ignores_what_it_does_not_know() {
        assert_eq!(of(&["init", "error", "no-such"]), "info");
    }
}
