//! Opening what is to be read.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::capture::CaptureError;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Opens a file, or standard input for `-`; with its size if that is known.
pub(super) fn open(path: &Path) -> Result<(Box<dyn Read>, Option<u64>), CaptureError> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::with_capacity(CHUNK, io::stdin())), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(CaptureError::NotCapture("it is a directory: name a file in it"));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(CHUNK, file)), size))
}
