//! The pages: what they point at is there, and every setting and metric that they name is one of the code's.

#![cfg(test)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// What is written for people.
const PAGE: &str = "md";
/// Where names come from.
const SOURCES: [&str; 7] = ["rs", "yaml", "sh", "toml", "proto", "json", "tpl"];
/// What builds and fuzzing leave behind.
const BUILT: [&str; 3] = ["target", "corpus", "artifacts"];
/// What metrics of one part begin with: the code adds it to each.
const PARTS: [&str; 5] = [
    "outrider_bridge_",
    "outrider_controller_",
    "outrider_export_",
    "outrider_neuvector_",
    "outrider_webhook_",
];

#[test]
fn every_link_leads_to_a_page_and_a_heading_that_are_there() {
    let all = files();
    let pages = of(&all, &[PAGE]);
    let headings: BTreeMap<_, _> = pages
        .iter()
        .map(|(path, text)| (path.clone(), headings(text)))
        .collect();
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        for link in links(text) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => plain(&page.parent().unwrap().join(path)),
            };
            let has_heading = || {
                headings
                    .get(&target)
                    .is_none_or(|there| there.contains(heading))
            };
            if !root().join(&target).exists() || !(heading.is_empty() || has_heading()) {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(!headings.is_empty());
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
}

#[test]
fn every_setting_and_metric_of_the_pages_is_in_the_code() {
    let all = files();
    let sources: String = of(&all, &SOURCES).into_values().collect();
    let known: BTreeSet<_> = words(&sources).collect();
    let is_known = |name: &str| {
        let rest = PARTS.iter().find_map(|part| name.strip_prefix(part));
        // Counters that are kept from one start to the next are written without their ending.
        let begun = rest.and_then(|rest| rest.strip_suffix("_total"));
        [Some(name), rest, begun]
            .iter()
            .flatten()
            .any(|name| known.contains(name))
    };
    let mut named = 0;
    let mut unknown = BTreeSet::new();
    for (page, text) in of(&all, &[PAGE]) {
        for name in words(&text) {
            let is_name = name.starts_with("OUTRIDER_") || name.starts_with("outrider_");
            // `OUTRIDER_X_…` and `outrider_x_*` stand for several.
            if !is_name || name.ends_with('_') {
                continue;
            }
            named += 1;
            if !is_known(name) {
                unknown.insert(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(named > 100, "only {named}");
    assert!(unknown.is_empty(), "nothing in the code is called {unknown:#?}");
}

#[test]
fn no_file_keeps_the_marks_of_a_conflict() {
    let marks = ["<", "=", ">"].map(|mark| mark.repeat(7));
    let is_mark = |line: &str| {
        marks
            .iter()
            .any(|mark| line.split(' ').next() == Some(mark))
    };
    for (path, text) in files() {
        let at = text.lines().position(is_mark);
        assert_eq!(at, None, "{}", path.display());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every text file of the project by its path from the root, without what is built.
fn files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut pending = vec![root().to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            let is_built = name.starts_with('.') || BUILT.contains(&&*name);
            if is_built || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
            }
        }
    }
    assert!(files.len() > 100);
    files
}

fn of(files: &BTreeMap<PathBuf, String>, endings: &[&str]) -> BTreeMap<PathBuf, String> {
    let is_one = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| endings.contains(&ending))
            || endings.len() > 1 && path == "Makefile"
    };
    files
        .iter()
        .filter(|(path, _)| is_one(path))
        .map(|(path, text)| (path.clone(), text.clone()))
        .collect()
}

/// Where links of a page lead within the project.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split([')', ' ']).next());
    targets.filter(|target| !target.contains(':'))
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().chars();
            let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// Everything that could be the name of a setting or metric.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

/// A path without steps back.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
