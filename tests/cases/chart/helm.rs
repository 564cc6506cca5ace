//! Real Helm, asked once for all that a test wants to know.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// What Helm said of the chart with some values.
pub(crate) struct Answers {
    /// The chart's own values.
    pub values: Value,
    /// Of each text of values: `files`, `objects` and `notes`, or `error`.
    pub results: Vec<Value>,
}

/// Renders the chart with each of these texts of values, in YAML.
pub(crate) fn render(texts: &[String]) -> Option<Answers> {
    let input = serde_json::to_string(texts).unwrap();
    let mut answer: Value = serde_json::from_str(&run(&["render", &chart()], &input)?).unwrap();
    let results = answer["results"].take().as_array().unwrap().clone();
    assert_eq!(results.len(), texts.len());
    Some(Answers { values: answer["values"].take(), results })
}

/// Asks Helm something; nothing if it is not to be had.
pub(crate) fn run(arguments: &[&str], input: &str) -> Option<String> {
    if !there() {
        return None;
    }
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Whether Helm is to be had, tried once.
fn there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let there = Command::new(program())
            .arg("version")
            .output()
            .is_ok_and(|output| output.status.success());
        if !there {
            let required = std::env::var_os("OUTRIDER_REQUIRE_NETNS").is_some();
            assert!(!required, "e2e/cluster/helm does not run");
            eprintln!("SKIPPED there is no Helm, and PyPI does not give it");
        }
        there
    })
}

fn program() -> PathBuf {
    root().join("e2e/cluster/helm")
}

/// Where the chart is.
pub(crate) fn chart() -> String {
    root().join("charts/outrider").display().to_string()
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The sets of values that are rendered, by name.
pub(crate) fn sets() -> Vec<(String, String)> {
    let mut sets: Vec<_> = fs::read_dir(root().join("charts/outrider/ci"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let name = name.strip_suffix("-values.yaml").unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    sets.sort();
    sets
}

/// Compares with a reviewed file, or writes it.
pub(crate) fn reviewed(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("OUTRIDER_BLESS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let differs = there
        .lines()
        .zip(text.lines())
        .position(|(one, other)| one != other);
    let line = differs.unwrap_or_else(|| there.lines().count().min(text.lines().count()));
    assert!(
        there == text,
        "{} changed at line {}; look at it, then OUTRIDER_BLESS=1\n  was {:?}\n  is  {:?}",
        path.display(),
        line + 1,
        there.lines().nth(line),
        text.lines().nth(line),
    );
}
