//! Tells one state of a file from another without reading it.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// A file that keeps all of this is the same file with the same content and rights.
///
/// Times alone do not do: they come from a clock that ticks every 1 to 10 ms (Linux, `current_time`), and what replaces a
/// file within one tick may be as long as it. The inode tells these apart, as both files exist when one is renamed over the
/// other. What is written in place, with equal length, twice within a tick is not noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    place: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
    mode: u32,
}

impl Stamp {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            place: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.size(),
            mode: found.mode(),
        }
    }

    /// Of what the path leads to; `None` for what is not there or cannot be looked at.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_that_replaces_one_of_its_age_and_length_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("file"), dir.path().join("beside"));
        let age = SystemTime::UNIX_EPOCH;
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::File::open(path).unwrap().set_modified(age).unwrap();
        };
        assert_eq!(Stamp::at(&path), None);
        write(&path, "enforced");
        let first = Stamp::at(&path);
        assert_eq!(Stamp::at(&path), first);
        write(&beside, "disabled");
        fs::rename(&beside, &path).unwrap();
        assert_ne!(Stamp::at(&path), first);
    }
}
