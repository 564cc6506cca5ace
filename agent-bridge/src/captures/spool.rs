//! A file without a name: gone when nobody has it open, be it by a kill.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::spawn_blocking;

/// Names that such files have for a moment.
const PREFIX: &str = ".capture-";

/// A file that only grows.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    file: Arc<File>,
    /// Bytes that are whole in the file.
    length: Arc<AtomicU64>,
}

impl Spool {
    /// Makes the file in `dir`, and takes its name away.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        // Two of one process never meet here: the table of captures is locked.
        let path = dir.join(format!("{PREFIX}{}", std::process::id()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file: Arc::new(file), length: Arc::default() })
    }

    /// Appends; there is one who does.
    ///
    /// # Errors
    /// What the system says: a full disk.
    pub(crate) async fn append(&self, bytes: Vec<u8>) -> io::Result<()> {
        let Self { file, length } = self.clone();
        let written = spawn_blocking(move || {
            let at = length.load(Ordering::Acquire);
            file.write_all_at(&bytes, at)?;
            length.store(at + bytes.len() as u64, Ordering::Release);
            Ok(())
        });
        written
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// The next bytes from `at`, `most` at most; none at the end.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) async fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let Self { file, length } = self.clone();
        let read = spawn_blocking(move || {
            let left = length.load(Ordering::Acquire).saturating_sub(at);
            let mut bytes = vec![0; usize::try_from(left).unwrap_or(most).min(most)];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        });
        read.await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}
