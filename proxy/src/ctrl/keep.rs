//! The last policy on disk, so that a proxy that starts without a bridge is not without a policy.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use outrider_wire::request::Request;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::state::Journal;

#[cfg(test)]
mod tests;

/// The file: requests that bring the policy about again.
#[derive(Debug, Deserialize, Serialize)]
struct File {
    format: u32,
    requests: Vec<Box<RawValue>>,
}

/// Where it is.
#[must_use]
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("policy.json")
}

/// Writes what is to be kept; nothing to keep is kept too, in place of what was.
pub(crate) fn save_journal(path: &Path, journal: Option<&Journal>) -> io::Result<()> {
    let datagrams = journal.map_or(Ok(Vec::new()), Journal::datagrams);
    save(path, datagrams.map_err(io::Error::other)?)
}

/// Writes the requests beside the old file and puts them in its place: whoever reads finds the old
/// ones or the new ones, whatever happens meanwhile.
fn save(path: &Path, datagrams: Vec<Vec<u8>>) -> io::Result<()> {
    let requests = datagrams.into_iter().map(raw).collect::<io::Result<_>>()?;
    let text = serde_json::to_vec(&File { format: FORMAT, requests })?;
    let beside = path.with_extension("json.new");
    let written = write_whole(&beside, &text)
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| {
            path.parent()
                .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
        });
    if written.is_err() {
        // A half-written file is no use to anybody; that it cannot be removed changes nothing.
        let _kept = fs::remove_file(&beside);
    }
    written
}

fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn raw(datagram: Vec<u8>) -> io::Result<Box<RawValue>> {
    let text = String::from_utf8(datagram).map_err(io::Error::other)?;
    Ok(RawValue::from_string(text)?)
}

/// Reads the requests back; `None` if nothing was kept.
pub(crate) fn load(path: &Path) -> io::Result<Option<Vec<Request>>> {
    let text = match fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE => return Err(io::Error::other("the file is too long")),
        Ok(_) => fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file: File = serde_json::from_slice(&text)?;
    if file.format != FORMAT {
        return Err(io::Error::other("the file is of another format"));
    }
    let mut requests = Vec::with_capacity(file.requests.len());
    for datagram in &file.requests {
        let commands =
            Request::parse_datagram(datagram.get().as_bytes()).map_err(io::Error::other)?;
        for command in commands {
            requests.push(command.request.map_err(io::Error::other)?);
        }
    }
    Ok(Some(requests))
}

const FORMAT: u32 = 1;
/// Longest file that is read: the most rules that a policy may have, at their longest.
const MAX_FILE: u64 = 1 << 28;
