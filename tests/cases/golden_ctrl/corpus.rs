//! The files.

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One datagram of the corpus and what its index says about it.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) about: Value,
}

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", "ctrl", file]
        .iter()
        .collect()
}

pub(crate) fn json(file: &str) -> Result<Value> {
    let text = fs::read(path(file)).with_context(|| file.to_owned())?;
    Ok(serde_json::from_slice(&text)?)
}

fn index(file: &str) -> Result<Vec<Value>> {
    json(file)?
        .as_array()
        .cloned()
        .context("an index is a list")
}

/// Every `.bin` with its decoded `.json`.
pub(crate) fn messages() -> Result<Vec<Golden>> {
    let entry = |entry: Value| {
        let name = entry["name"].as_str().context("a name")?.to_owned();
        let bytes = fs::read(path(&format!("messages/{name}.bin")))?;
        let about = json(&format!("messages/{name}.json"))?;
        Ok(Golden { name, bytes, about })
    };
    index("messages/INDEX.json")?
        .into_iter()
        .map(entry)
        .collect()
}

/// Every request datagram.
pub(crate) fn requests() -> Result<Vec<Golden>> {
    let entry = |about: Value| {
        let name = about["file"].as_str().context("a file")?.to_owned();
        let bytes = fs::read(path(&format!("requests/{name}")))?;
        Ok(Golden { name, bytes, about })
    };
    index("requests/INDEX.json")?
        .into_iter()
        .map(entry)
        .collect()
}

/// Every malformed or unusual input.
pub(crate) fn robustness() -> Result<Vec<Value>> {
    index("robustness.json")
}

/// The lines of a transcript.
pub(crate) fn transcript(file: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path(&format!("transcripts/{file}")))?;
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

/// Says how much was checked, whether output is captured or not, and fails if it was too little.
pub(crate) fn report(seen: usize, what: &str, at_least: usize) -> Result<()> {
    writeln!(std::io::stdout().lock(), "golden ctrl: {seen} {what}")?;
    ensure!(seen >= at_least, "only {seen} {what}, {at_least} expected");
    Ok(())
}
