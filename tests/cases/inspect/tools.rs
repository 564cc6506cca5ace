//! Captures that other people's tools have changed: rows must stay where the meaning does, and nothing
//! may fall over where it does not.

use std::{fs, path::Path, process::Command, thread};

use serde_json::Value;
use tempfile::TempDir;

use crate::{corpus, inspect, protocols, rows, variants::survive};

/// Changes that leave the meaning alone: `{in}` and `{out}` are files, `{dir}` has `scatter`.
const HARMLESS: [&str; 5] = [
    "tcprewrite --fragroute={dir}/scatter -i {in} -o {out}",
    "tcprewrite --enet-vlan=add --enet-vlan-tag=7 --enet-vlan-cfi=0 --enet-vlan-pri=0 -i {in} -o {out}",
    "tcprewrite --tcp-sequence=77 -i {in} -o {out}",
    "editcap -F pcapng {in} {out}",
    "editcap -F nseclibpcap -t 86400 {in} {out}",
];

/// Changes that do not.
const HARMFUL: [&str; 8] = [
    "tcprewrite --fuzz-seed=1 --fuzz-factor=1 -i {in} -o {out}",
    "tcprewrite --fuzz-seed=2 --fuzz-factor=3 -i {in} -o {out}",
    "tcprewrite --mtu=120 --mtu-trunc -i {in} -o {out}",
    "editcap --seed 1 -E 0.02 {in} {out}",
    "editcap --seed 2 -E 0.2 -o 14 {in} {out}",
    "editcap -s 60 {in} {out}",
    "editcap -C 20:12 -L {in} {out}",
    "editcap -T rawip {in} {out}",
];

/// Fragments of 64 bytes in any order, some of them twice.
const SCATTER: &str = "ip_frag 64\ndup random 20\norder random\n";

/// Whether both are installed; says so if not.
fn installed() -> bool {
    let there = |tool: &str| {
        Command::new(tool)
            .arg("--version")
            .output()
            .is_ok_and(|out| out.status.success())
    };
    let both = there("editcap") && there("tcprewrite");
    if !both {
        eprintln!("SKIPPED: editcap and tcprewrite are not installed (make setup)");
        assert!(std::env::var_os("OUTRIDER_REQUIRE_NETNS").is_none(), "they are required");
    }
    both
}

/// What a tool makes of a capture; nothing if it refuses.
fn changed(dir: &Path, command: &str, capture: &[u8]) -> Option<Vec<u8>> {
    let (before, after) = (dir.join("in.pcap"), dir.join("out.pcap"));
    fs::write(&before, capture).unwrap();
    fs::remove_file(&after).ok();
    let path = |path: &Path| path.display().to_string();
    let command = command
        .replace("{in}", &path(&before))
        .replace("{out}", &path(&after))
        .replace("{dir}", &path(dir));
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    output.status.success().then(|| fs::read(&after).unwrap())
}

fn desk() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("scatter"), SCATTER).unwrap();
    dir
}

#[test]
fn what_tools_change_without_harm_changes_no_row() {
    if !installed() {
        return;
    }
    let desk = desk();
    let bare = |mut rows: Vec<Value>| {
        for row in &mut rows {
            row.as_object_mut().unwrap().remove("notes");
        }
        rows.sort_by_key(Value::to_string);
        rows
    };
    for (expected, capture) in corpus() {
        for command in HARMLESS {
            // Fragments of IPv4 only, and pings that are fragments already stay as they are; a
            // datagram that is sent twice is two.
            let other = ["\"[", "icmp", "\"udp\""]
                .iter()
                .any(|what| expected.contains(what));
            if other && command.contains("fragroute") {
                continue;
            }
            let changed = changed(desk.path(), command, &capture).expect(command);
            assert_eq!(bare(inspect(&changed)), bare(rows(expected.as_bytes())), "{command}");
        }
    }
}

#[test]
fn what_tools_spoil_is_survived() {
    if !installed() {
        return;
    }
    let real = corpus().into_iter().map(|(_, capture)| capture);
    let made = protocols::captures().into_iter().map(|file| file.plain());
    let captures: Vec<_> = real.chain(made).collect();
    let spoil = |from: usize, captures: &[Vec<u8>]| {
        let desk = desk();
        let mut count = 0;
        for (name, capture) in (from..).zip(captures) {
            for (number, command) in (0..).zip(HARMFUL) {
                if let Some(changed) = changed(desk.path(), command, capture) {
                    survive(&changed, name, number);
                    count += 1;
                }
            }
        }
        count
    };
    let (first, second) = captures.split_at(captures.len() / 2);
    let count = thread::scope(|scope| {
        let other = scope.spawn(|| spoil(first.len(), second));
        spoil(0, first) + other.join().unwrap()
    });
    assert!(count >= 200, "{count} captures");
}
