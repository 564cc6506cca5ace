//! Five hundred ways to spoil a capture, and one that is large.

use std::thread;

use outrider_packet::build::{Talk, ethernet};

use crate::{
    corpus,
    files::{Dice, File, Form, hex},
    inspect, inspect_with, protocols, rows,
};

/// Variants of each capture.
const VARIANTS: u64 = 24;

#[test]
fn five_hundred_spoilt_captures_are_survived() {
    let real = corpus()
        .into_iter()
        .map(|(_, capture)| File::read(&capture));
    let captures: Vec<_> = real.chain(protocols::captures()).collect();
    assert!(captures.len() as u64 * VARIANTS >= 500);
    let half = captures.len() / 2;
    thread::scope(|scope| {
        for part in [&captures[..half], &captures[half..]] {
            scope.spawn(move || {
                for (name, capture) in part.iter().enumerate() {
                    for variant in 0..VARIANTS {
                        survive(&spoil(capture, variant), name, variant);
                    }
                }
            });
        }
    });
}

/// Runs the command over what may be anything, within its memory.
pub(crate) fn survive(bytes: &[u8], name: usize, variant: u64) {
    let output = inspect_with(bytes, "--json");
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let start = hex(&bytes[..bytes.len().min(64)]);
    assert!(
        matches!(code, Some(0 | 1)),
        "capture {name}, variant {variant}: {code:?} {said} {start}"
    );
    assert!(!said.contains("panicked"), "capture {name}, variant {variant}: {said}");
    // What it says is whole lines of JSON, whatever it read.
    rows(&output.stdout);
}

/// One thing that is wrong with a capture.
fn spoil(capture: &File, variant: u64) -> Vec<u8> {
    let mut dice = Dice(variant * 7_919 + 1);
    let mut file = capture.clone();
    let count = file.records.len();
    match variant % 8 {
        // Every frame somewhere else.
        0 => (0..count).for_each(|at| file.records.swap(at, dice.below(count))),
        // A third of the frames missing.
        1 => file.records.retain(|_| dice.below(3) > 0),
        // Frames cut short.
        2 => file
            .records
            .iter_mut()
            .for_each(|record| record.bytes.truncate(dice.below(80))),
        // Bytes changed in every frame.
        3 => file.records.iter_mut().for_each(|record| {
            for _ in 0..3 {
                let (at, value) = (dice.below(record.bytes.len().min(80)), dice.below(256));
                record.bytes[at] = u8::try_from(value).unwrap();
            }
        }),
        // Frames many times, at times that go back and forth.
        4 => {
            file.records = file
                .records
                .iter()
                .flat_map(|record| vec![record.clone(); 3])
                .collect();
            file.records
                .iter_mut()
                .for_each(|record| record.seconds ^= u32::try_from(dice.below(1 << 20)).unwrap());
        }
        _ => return spoil_file(&file, variant, &mut dice),
    }
    file.plain()
}

/// Something that is wrong with the file rather than with its frames.
fn spoil_file(file: &File, variant: u64, dice: &mut Dice) -> Vec<u8> {
    let form = if variant.is_multiple_of(2) {
        Form::Pcap { big: false, nanos: true }
    } else {
        Form::PcapNg { big: variant % 4 == 1, resolution: 9 }
    };
    let mut bytes = file.write(form);
    if variant % 8 == 5 {
        bytes.truncate(dice.below(bytes.len()));
    } else {
        for _ in 0..4 {
            let at = dice.below(bytes.len());
            bytes[at] = u8::try_from(dice.below(256)).unwrap();
        }
    }
    bytes
}

#[test]
fn neighbours_that_change_places_change_no_row() {
    for (expected, capture) in corpus() {
        let file = File::read(&capture);
        for at in 0..file.records.len().min(12).saturating_sub(1) {
            let mut file = file.clone();
            let (bytes, wire) = (file.records[at].bytes.clone(), file.records[at].wire);
            file.records[at].bytes = file.records[at + 1].bytes.clone();
            file.records[at].wire = file.records[at + 1].wire;
            (file.records[at + 1].bytes, file.records[at + 1].wire) = (bytes, wire);
            let mut seen = inspect(&file.plain());
            let mut checked = rows(expected.as_bytes());
            for row in seen.iter_mut().chain(&mut checked) {
                row.as_object_mut().unwrap().remove("notes");
            }
            let key = |row: &serde_json::Value| row.to_string();
            seen.sort_by_key(key);
            checked.sort_by_key(key);
            assert_eq!(seen, checked, "frames {at} and {}", at + 1);
        }
    }
}

#[test]
fn a_file_larger_than_the_memory_is_read() {
    let mut frames = Vec::new();
    for port in 1..=60_u16 {
        let client = std::net::SocketAddr::from(([10, 0, 0, 1], 40_000 + port));
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n";
        let mut body = head.to_vec();
        body.resize(head.len() + 4_000_000, b'x');
        let talk = Talk::new(client, "10.0.0.2:80".parse().unwrap())
            .open()
            .client(b"GET / HTTP/1.1\r\nHost: large.example\r\n\r\n")
            .server(&body)
            .close();
        frames.extend(talk.packets.iter().map(|packet| ethernet(packet)));
    }
    let bytes = File::of(1, frames).plain();
    assert!(bytes.len() > (crate::MEMORY as usize) << 10, "{}", bytes.len());
    let seen = inspect(&bytes);
    assert_eq!(seen.len(), 60);
    assert!(seen.iter().all(
        |row| row["server_bytes"].as_u64() > Some(4_000_000) && row["host"] == "large.example"
    ));
    assert!(seen.iter().all(|row| row.get("notes").is_none()));
}
