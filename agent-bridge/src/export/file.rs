//! JSON lines into a file that is rotated by size, or to standard output.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{Place, sink::Failure, spool::Entry};

/// Full files that are kept: `.1` is the newest.
const KEPT: usize = 4;
/// The end of a line that a kill tore is looked for this far back; no event is longer.
const TAIL: u64 = 64 << 10;

/// Where the lines go.
#[derive(Debug)]
pub(super) struct File {
    place: Place,
    size: u64,
    /// A write that nobody waits for any more: the next one must not overtake it.
    stuck: Option<JoinHandle<io::Result<()>>>,
}

impl File {
    /// Lines to standard output, or into a file that is rotated once it has `size` bytes.
    pub(super) fn new(place: Place, size: u64) -> Self {
        Self { place, size, stuck: None }
    }

    /// Writes the batch, to the disk if it is a file. At most one thread is ever held up.
    pub(super) async fn deliver(&mut self, batch: Vec<Entry>) -> Result<(), Failure> {
        if let Some(before) = &mut self.stuck {
            drop(before.await);
        }
        let (place, size) = (self.place.clone(), self.size);
        let write = spawn_blocking(move || match place {
            Place::Output => {
                let mut output = io::stdout().lock();
                output.write_all(&lines(&batch))?;
                output.flush()
            }
            Place::Path(path) => append(&path, size, &lines(&batch)),
        });
        let written = self.stuck.insert(write).await;
        self.stuck = None;
        written.map_err(io::Error::other)??;
        Ok(())
    }
}

fn lines(batch: &[Entry]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in batch {
        text.extend_from_slice(entry.json.as_bytes());
        text.push(b'\n');
    }
    text
}

/// The file is opened each time: whoever moves it away gets a new one.
fn append(path: &Path, size: u64, lines: &[u8]) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() >= size) {
        rotate(path)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    if file.metadata()?.is_file() {
        mend(&mut file)?;
    }
    file.write_all(lines)?;
    match file.sync_data() {
        // A pipe or a device has nothing to keep.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Removes the beginning of a line that was never ended: its event comes again.
fn mend(file: &mut std::fs::File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    if torn == 0 { Ok(()) } else { file.set_len(length.saturating_sub(torn)) }
}

fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..KEPT).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry { number, time: 0, json: format!("{{\"n\":{number}}}").into() }
    }

    #[tokio::test]
    async fn lines_are_appended_a_torn_one_is_mended_and_full_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.json");
        std::fs::write(&path, "{\"n\":0}\n{\"n\":1,\"to").unwrap();
        let mut file = File::new(Place::Path(path.clone()), 20);
        file.deliver(vec![entry(1)]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"n\":0}\n{\"n\":1}\n");
        for number in 2..20 {
            file.deliver(vec![entry(number)]).await.unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = ["", ".1", ".2", ".3", ".4"].map(|end| format!("events.json{end}"));
        assert_eq!(names, expected);
        let newest = std::fs::read_to_string(dir.path().join("events.json.1")).unwrap();
        assert!(newest.lines().count() >= 2 && newest.ends_with("}\n"), "{newest}");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_a_failure() {
        let mut file = File::new(Place::Path("/nonexistent/events".into()), 1);
        assert!(matches!(file.deliver(vec![entry(1)]).await, Err(Failure::Io(_))));
    }
}
