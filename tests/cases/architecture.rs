//! The rooms: which crate may depend on which, and on what from outside; how long a file may be.
//!
//! The tables below are the architecture. Where a manifest and a table disagree, change one of them
//! in the same commit, and say why.

#![cfg(test)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Which rooms a room may depend on.
const ROOMS: [(&str, &[&str]); 16] = [
    ("model", &[]),
    ("capture", &["model"]),
    ("packet", &["model"]),
    ("dpi", &["model"]),
    ("policy", &["model"]),
    ("wire", &["model"]),
    ("telemetry", &["model"]),
    ("relay", &["model", "dpi", "policy", "packet", "telemetry"]),
    ("proxy", &["model", "capture", "packet", "dpi", "policy", "relay", "telemetry", "wire"]),
    ("init", &["model"]),
    ("learn", &["model", "policy"]),
    ("api", &["model"]),
    ("agent-bridge", &["model", "wire", "telemetry", "policy", "learn", "api"]),
    ("cli", &["model", "api", "learn", "policy", "packet", "dpi"]),
    ("tests", ANY),
    ("e2e", &[]),
];
const ANY: &[&str] = &["*"];

/// Rooms that do no I/O: bytes in, values out, time is an argument.
const PURE: [&str; 6] = ["model", "dpi", "policy", "wire", "packet", "learn"];

/// What a pure room must not see.
const IMPURE_CRATES: [&str; 12] = [
    "tokio",
    "tokio-util",
    "nix",
    "libc",
    "socket2",
    "hyper",
    "hyper-util",
    "axum",
    "tracing",
    "prometheus",
    "redb",
    "arc-swap",
];

/// Crates that only these rooms may use.
const RESERVED: [(&str, &[&str]); 9] = [
    // QUIC hides a client's hello under keys that anybody can derive; whoever reads it must decrypt.
    // The bridge keeps digests of its API's tokens and signs the batches of events that it posts.
    ("aws-lc-rs", &["dpi", "agent-bridge"]),
    ("prometheus", &["telemetry"]),
    ("tracing-subscriber", &["telemetry"]),
    ("tonic", &["api", "agent-bridge"]),
    ("prost", &["api", "agent-bridge"]),
    ("redb", &["agent-bridge"]),
    ("kube", &["agent-bridge"]),
    ("k8s-openapi", &["agent-bridge"]),
    ("anyhow", &["proxy", "init", "agent-bridge", "cli", "tests", "e2e"]),
];

/// Crates at most: what is less than a boundary is a module.
const MAX_CRATES: usize = 16;
/// Code lines of a file at most, tests apart.
const MAX_LINES: usize = 400;

struct Room {
    name: String,
    dir: PathBuf,
    root: PathBuf,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    dev: bool,
}

#[test]
fn every_edge_between_rooms_is_in_the_table() {
    let mut wrong = Vec::new();
    for room in rooms() {
        let allowed = allowed(&room.name);
        for edge in &room.dependencies {
            let Some(target) = room_of(&edge.name) else { continue };
            if allowed != ANY && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{} -> {target}", room.name));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the table does not allow: {wrong:?}");
}

#[test]
fn pure_rooms_see_no_runtime_no_sockets_and_no_logs() {
    let mut wrong = Vec::new();
    for room in rooms()
        .iter()
        .filter(|room| PURE.contains(&room.name.as_str()))
    {
        for dependency in room
            .dependencies
            .iter()
            .filter(|dependency| !dependency.dev)
        {
            if IMPURE_CRATES.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} uses {}", room.name, dependency.name));
            }
        }
        for (path, text) in sources(&room.dir) {
            for path_used in ["std::net::Tcp", "std::net::Udp", "std::os::unix::net", "std::fs"] {
                if production(&text).any(|line| line.contains(path_used)) {
                    wrong.push(format!("{} uses {path_used}", path.display()));
                }
            }
            for clock in ["SystemTime::now", "Instant::now"] {
                if production(&text).any(|line| line.contains(clock)) {
                    wrong.push(format!("{} reads a clock: {clock}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "pure rooms must stay pure: {wrong:#?}");
}

#[test]
fn crates_with_a_room_of_their_own_stay_there() {
    let mut wrong = Vec::new();
    for room in rooms() {
        for dependency in room
            .dependencies
            .iter()
            .filter(|dependency| !dependency.dev)
        {
            let reserved = RESERVED.iter().find(|(name, _)| *name == dependency.name);
            if reserved.is_some_and(|(_, rooms)| !rooms.contains(&room.name.as_str())) {
                wrong.push(format!("{} uses {}", room.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn there_are_sixteen_crates_at_most() {
    let rooms: Vec<_> = rooms().into_iter().map(|room| room.name).collect();
    assert!(rooms.len() <= MAX_CRATES, "{} crates: {rooms:?}", rooms.len());
}

#[test]
fn fuzz_crates_depend_on_the_room_they_stand_in() {
    let mut wrong = Vec::new();
    for room in rooms() {
        let Ok(manifest) = fs::read_to_string(room.dir.join("fuzz/Cargo.toml")) else { continue };
        for line in manifest
            .lines()
            .filter(|line| line.starts_with("outrider-"))
        {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let target = room_of(name).unwrap_or_default();
            if target != room.name && target != "model" {
                wrong.push(format!("{}/fuzz -> {target}", room.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_in_capture_sys() {
    let mut wrong = Vec::new();
    for room in rooms() {
        let root = fs::read_to_string(&room.root).unwrap();
        if room.name != "capture" && !root.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{} does not forbid unsafe code", room.root.display()));
        }
        for (path, text) in sources(&room.dir) {
            let in_sys = room.name == "capture" && path.to_string_lossy().contains("/sys");
            let uses = |line: &str| {
                let forms = [concat!("unsafe", " {"), concat!("unsafe", " fn")];
                forms.iter().any(|form| line.contains(form))
            };
            if !in_sys && code(&text).any(uses) {
                wrong.push(format!("{} has unsafe code", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let mut wrong = Vec::new();
    for room in rooms() {
        for (path, text) in sources(&room.dir) {
            let lines = production(&text).count();
            if !is_test_file(&path) && lines > MAX_LINES {
                wrong.push(format!("{}: {lines} code lines", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "longer than {MAX_LINES} lines: {wrong:#?}");
}

#[test]
fn modules_have_no_mod_rs_and_notes_have_an_issue_number() {
    let mut wrong = Vec::new();
    for room in rooms() {
        for (path, text) in sources(&room.dir) {
            // Cargo takes every file of a `tests` directory for a test of its own, `mod.rs` apart.
            if path.ends_with("mod.rs") && !path.starts_with(room.dir.join("tests")) {
                wrong.push(format!("{}: call it by its module's name", path.display()));
            }
            for mark in [concat!("TO", "DO"), concat!("FIX", "ME")] {
                let numbered = |line: &str| line.contains(&format!("{mark}(#"));
                if text
                    .lines()
                    .any(|line| line.contains(mark) && !numbered(line))
                {
                    wrong.push(format!("{}: {mark} without an issue number", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_code_counter_leaves_out_blanks_comments_and_tests() {
    let text = "//! Doc.\n\nfn one() {\n    two(); // why\n}\n#[cfg(test)]\nmod tests;\nfn three() {}\n\
                #[cfg(test)]\nmod tests {\n    fn four() {}\n}\n";
    assert_eq!(production(text).count(), 4);
}

/// Every member of the workspace with what its manifest says.
fn rooms() -> Vec<Room> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(room).collect()
}

fn room(package: &Value) -> Room {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let targets = package["targets"].as_array().unwrap();
    let is_root = |target: &&Value| {
        let kind = target["kind"][0].as_str().unwrap_or_default();
        let path = target["src_path"].as_str().unwrap_or_default();
        matches!(kind, "lib" | "bin") && (path.ends_with("lib.rs") || path.ends_with("main.rs"))
    };
    let root = targets.iter().find(is_root).unwrap_or(&targets[0]);
    let dependencies = package["dependencies"].as_array().unwrap();
    let name = text(&package["name"]);
    Room {
        name: room_of(&name).unwrap_or(name),
        dir: manifest.parent().unwrap().to_owned(),
        root: text(&root["src_path"]).into(),
        dependencies: dependencies
            .iter()
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                dev: dependency["kind"] == "dev",
            })
            .collect(),
    }
}

/// `outrider-dpi` is the room `dpi`.
fn room_of(package: &str) -> Option<String> {
    package.strip_prefix("outrider-").map(str::to_owned)
}

fn allowed(room: &str) -> &'static [&'static str] {
    let table: BTreeMap<_, _> = ROOMS.into_iter().collect();
    table
        .get(room)
        .unwrap_or_else(|| panic!("{room} has no row in the table of rooms"))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every Rust file of a crate with its text, other crates inside its directory left out.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending: Vec<_> = ["src", "cases", "tests", "benches", "build.rs"]
        .iter()
        .map(|part| dir.join(part))
        .filter(|path| path.exists())
        .collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn is_test_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.ends_with("/tests.rs")
        || text.contains("/tests/cases/")
        || text.contains("/benches/")
        || path.components().any(|part| part.as_os_str() == "tests")
            && !path.starts_with(workspace().join("tests/src"))
}

/// Lines that are neither blank nor comment.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
}

/// Code lines outside the unit tests, which stand at the bottom of a file.
fn production(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = Vec::new();
    let mut after_cfg = false;
    for line in code(text) {
        if after_cfg && line.starts_with("mod ") {
            lines.pop();
            if line.ends_with(';') {
                after_cfg = false;
                continue;
            }
            break;
        }
        after_cfg = line == "#[cfg(test)]";
        lines.push(line);
    }
    lines.into_iter()
}
