//! Finds the binaries under test, and refuses those older than their sources.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};

/// Directory of the binaries; without it, the newest build next to the running program.
pub const BIN_DIR: &str = "OUTRIDER_BIN_DIR";
/// Set to 1 to run binaries that are older than their sources.
pub const ALLOW_STALE: &str = "OUTRIDER_ALLOW_STALE";

/// Where a binary lies.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(BIN_DIR) {
        Some(dir) => Path::new(&dir).join(name),
        None => newest(name)?,
    };
    if !path.is_file() {
        bail!("{} does not exist: run `make build` first", path.display());
    }
    let path = path.canonicalize()?;
    if std::env::var(ALLOW_STALE).is_ok_and(|value| value == "1") {
        return Ok(path);
    }
    match newer_source(&path)? {
        Some(source) => bail!("{} is older than {source}: run `make build`", path.display()),
        None => Ok(path),
    }
}

/// The binary that was built with the running test, for tests of its own; `None` if it was not, or before its sources
/// were as they are.
#[must_use]
pub fn built_along(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    let path = path.parent()?.with_file_name(name);
    let is_new = path.is_file() && matches!(newer_source(&path), Ok(None));
    is_new.then_some(path)
}

/// The newest of the release and debug builds.
fn newest(name: &str) -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("a workspace")?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| target.join("target"), PathBuf::from);
    ["release", "ci", "debug"]
        .iter()
        .map(|profile| target.join(profile).join(name))
        .filter_map(|path| Some((modified(&path).ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| format!("no build of {name} in {}: run `make build`", target.display()))
}

/// The first source, by the list cargo leaves beside the binary, that is newer than the binary.
fn newer_source(binary: &Path) -> Result<Option<String>> {
    let Ok(list) = fs::read_to_string(binary.with_extension("d")) else {
        return Ok(None); // installed, not built here
    };
    let built = modified(binary)?;
    let sources = list.split_once(':').map_or("", |(_, sources)| sources);
    Ok(sources
        .split_ascii_whitespace()
        .filter(|source| source.ends_with(".rs"))
        .find(|source| modified(Path::new(source)).is_ok_and(|changed| changed > built))
        .map(str::to_owned))
}

fn modified(path: &Path) -> Result<SystemTime> {
    Ok(fs::metadata(path)?.modified()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn refuses_a_binary_older_than_its_sources() {
        let dir = tempfile::tempdir().unwrap();
        let (binary, source) = (dir.path().join("tool"), dir.path().join("main.rs"));
        fs::write(&binary, "").unwrap();
        fs::write(&source, "").unwrap();
        let list = format!("{}: {}\n", binary.display(), source.display());
        fs::write(dir.path().join("tool.d"), list).unwrap();
        let built = modified(&binary).unwrap();
        let touch = |when| fs::File::open(&source).unwrap().set_modified(when).unwrap();
        touch(built - Duration::from_secs(5));
        assert_eq!(newer_source(&binary).unwrap(), None);
        touch(built + Duration::from_secs(5));
        assert_eq!(newer_source(&binary).unwrap(), Some(source.display().to_string()));
    }
}
