//! `outrider inspect`, the binary itself: over captures of real clients and servers, over frames
//! made by hand, and over everything that can be wrong with a file.

#![cfg(test)]

#[path = "inspect/files.rs"]
mod files;
#[path = "inspect/made.rs"]
mod made;
#[path = "inspect/protocols.rs"]
mod protocols;
#[path = "inspect/tools.rs"]
mod tools;
#[path = "inspect/variants.rs"]
mod variants;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
};

use files::{File, Form};
use serde_json::Value;

/// Address space that the command may use, in KiB. A debug build maps some of it before it begins.
const MEMORY: u32 = 192 << 10;

/// The command, built if it is not. `make test` has built it for its own tests, with the features of all crates: alone
/// it has fewer, and all that it needs would be built again.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = outrider_tests::binaries::built_along("outrider") {
            return path;
        }
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", "outrider-cli"])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let found = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        found.expect("cargo names the binary")
    })
}

/// Runs the command over a capture in memory, within its memory.
fn inspect_with(capture: &[u8], json: &str) -> Output {
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" inspect - {json}")])
        .arg(binary())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = capture.to_vec();
    // It may stop reading before the end.
    let writer = thread::spawn(move || drop(input.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What it says, which must be without a fault.
fn inspect(capture: &[u8]) -> Vec<Value> {
    let output = inspect_with(capture, "--json");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    rows(&output.stdout)
}

fn rows(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pcap")
        })
        .map(|path| {
            let rows = fs::read_to_string(path.with_extension("jsonl")).unwrap();
            (rows, fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    assert!(found.len() >= 15, "{} captures", found.len());
    found
}

#[test]
fn real_captures_give_the_rows_that_were_checked() {
    for (expected, capture) in corpus() {
        assert_eq!(inspect(&capture), rows(expected.as_bytes()));
    }
}

#[test]
fn the_members_of_a_row_have_the_documented_order() {
    let (expected, capture) = corpus().swap_remove(0);
    let output = inspect_with(&capture, "--json");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let mut from = 0;
    for member in [
        "proto",
        "client",
        "server",
        "app",
        "app_id",
        "host",
        "sni",
        "threats",
        "client_bytes",
        "server_bytes",
    ] {
        let at = expected.find(&format!("\"{member}\":")).unwrap();
        assert!(at >= from, "{member}");
        from = at;
    }
}

#[test]
fn every_form_of_a_file_gives_the_same_rows() {
    for (expected, capture) in corpus() {
        let file = File::read(&capture);
        for form in [
            Form::Pcap { big: false, nanos: false },
            Form::Pcap { big: true, nanos: false },
            Form::Pcap { big: false, nanos: true },
            Form::Pcap { big: true, nanos: true },
            Form::PcapNg { big: false, resolution: 6 },
            Form::PcapNg { big: true, resolution: 9 },
            Form::PcapNg { big: false, resolution: 0x94 },
        ] {
            assert_eq!(inspect(&file.write(form)), rows(expected.as_bytes()), "{form:?}");
        }
    }
}

#[test]
fn what_is_no_capture_is_told_what_to_do() {
    for (bytes, hint) in [
        (&b""[..], "it is empty"),
        (b"abc", "shorter than"),
        (b"#!/bin/sh\nexit\n", "tcpdump -w"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gunzip -c"),
        (b"\xd4\xc3\xb2\xa1\x02\0", "ends in the header"),
        (&[&b"\xd4\xc3\xb2\xa1"[..], &[0; 16], &[105, 0, 0, 0]].concat(), "radio"),
    ] {
        let output = inspect_with(bytes, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("outrider: -: not a capture") && said.contains(hint), "{said}");
    }
    let missing = Command::new(binary())
        .args(["inspect", "/nonexistent.pcap"])
        .output()
        .unwrap();
    let said = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(said.contains("/nonexistent.pcap") && said.contains("No such file"), "{said}");
}

#[test]
fn a_file_that_is_cut_shows_what_can_be_read_and_says_so() {
    let (expected, capture) = corpus()
        .into_iter()
        .find(|(rows, _)| rows.contains("shop.example"))
        .unwrap();
    for form in
        [Form::Pcap { big: false, nanos: false }, Form::PcapNg { big: false, resolution: 6 }]
    {
        let bytes = File::read(&capture).write(form);
        let output = inspect_with(&bytes[..bytes.len() - 9], "--json");
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("the file ends inside a record"), "{said}");
        assert_eq!(rows(&output.stdout)[0]["client"], rows(expected.as_bytes())[0]["client"]);
    }
}

#[test]
fn a_file_that_is_broken_shows_what_is_before_and_fails() {
    let (_, capture) = corpus()
        .into_iter()
        .find(|(rows, _)| rows.contains("shop.example"))
        .unwrap();
    let mut bytes = File::read(&capture).plain();
    let second = 24 + 16 + File::read(&capture).records[0].bytes.len();
    bytes[second + 8..second + 12].copy_from_slice(&[0xff; 4]);
    let output = inspect_with(&bytes, "--json");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(rows(&output.stdout).len(), 1);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("the record at byte {second} makes no sense")), "{said}");
}

#[test]
fn people_get_a_table() {
    let (_, capture) = corpus()
        .into_iter()
        .find(|(rows, _)| rows.contains("shop.example"))
        .unwrap();
    let output = inspect_with(&capture, "");
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("PROTO  CLIENT"), "{table}");
    assert_eq!(lines[0].find("NAME"), lines[1].find("shop.example"), "{table}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains(" frames, ")
    );
}
