//! Who may use the TCP listener: bearer tokens, of which only digests are kept.
//!
//! The file has a line `name role sha256` per token: a name for the log, `read` or `write`, and the
//! token's SHA-256 in hexadecimal. Tokens are long and random, so a plain digest is enough: there is
//! nothing to guess. The file is looked at every second. A file that is gone or cannot be read
//! leaves nobody with access, and a line that makes no sense gives nothing: the mistake closes.

use std::{
    fmt,
    fs::File,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use parking_lot::RwLock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::stamp::Stamp;

/// Time between two looks at the file.
const RELOAD: Duration = Duration::from_secs(1);
/// Most tokens of one file.
const MAX_TOKENS: usize = 256;
/// Largest file.
const MAX_FILE: u64 = 64 * 1024;
/// Longest name of a token's holder.
const MAX_NAME: usize = 63;
/// Bytes of a SHA-256.
const DIGEST: usize = 32;
/// Permission bits that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// What a token is good for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Look.
    Read,
    /// Look and change.
    Write,
}

/// Tokens of our own.
#[derive(Debug)]
pub enum Tokens {
    /// Nobody's: there are no tokens.
    None,
    /// A file's.
    File(TokenFile),
}

/// A token's holder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// For the log.
    pub name: String,
    /// What the token is good for.
    pub role: Role,
}

/// Every mistake of a token file; never a part of a token or of its digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokensError(pub Vec<String>);

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for TokensError {}

impl Tokens {
    /// Reads the file, if there is to be one.
    ///
    /// # Errors
    /// When the file cannot be used as it is.
    pub fn open(path: Option<&Path>) -> Result<Self, TokensError> {
        let Some(path) = path else { return Ok(Self::None) };
        let (stamp, text) = load(path).map_err(|error| TokensError(vec![error]))?;
        let (entries, mistakes) = parse(&text);
        if !mistakes.is_empty() {
            return Err(TokensError(mistakes));
        }
        let entries = RwLock::new(entries.into());
        Ok(Self::File(TokenFile { path: path.into(), stamp: RwLock::new(Some(stamp)), entries }))
    }

    /// Whose token this is. The time it takes says nothing about how much of it is right.
    #[must_use]
    pub fn holder(&self, token: &str) -> Option<Holder> {
        let Self::File(file) = self else { return None };
        let presented = digest::digest(&digest::SHA256, token.as_bytes());
        let entries = Arc::clone(&file.entries.read());
        let mut found = None;
        for entry in entries.iter() {
            if verify_slices_are_equal(&entry.digest, presented.as_ref()).is_ok() {
                found = Some(entry.holder.clone());
            }
        }
        found
    }

    /// Follows changes of the file until `stop`.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Self::File(file) = &*self else { return stop.cancelled().await };
        let mut ticker = interval(RELOAD);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticker.tick() => file.reload(),
            }
        }
    }
}

/// A file of tokens, as it was read last.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    stamp: RwLock<Option<Stamp>>,
    entries: RwLock<Arc<[Entry]>>,
}

struct Entry {
    holder: Holder,
    digest: [u8; DIGEST],
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.holder.fmt(f)
    }
}

impl TokenFile {
    fn reload(&self) {
        let known = *self.stamp.read();
        let found = Stamp::at(&self.path);
        if found.is_some() && found == known {
            return;
        }
        let (stamp, entries, mistakes) = match load(&self.path) {
            Ok((stamp, text)) => {
                let (entries, mistakes) = parse(&text);
                (Some(stamp), entries, mistakes)
            }
            Err(error) => (None, Vec::new(), vec![error]),
        };
        // A file that stays away is said once.
        if known.is_none() && stamp.is_none() {
            return;
        }
        let (path, tokens) = (self.path.display(), entries.len());
        if mistakes.is_empty() {
            tracing::info!(%path, tokens, "tokens read again");
        } else {
            let mistakes = mistakes.join("; ");
            tracing::error!(%path, tokens, mistakes, "not all of the token file can be used");
        }
        *self.entries.write() = entries.into();
        *self.stamp.write() = stamp;
    }
}

fn load(path: &Path) -> Result<(Stamp, String), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(wrong)?;
    let found = file.metadata().map_err(wrong)?;
    if !found.is_file() {
        return Err(format!("{}: not a plain file", path.display()));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        let mode = found.mode() & 0o777;
        return Err(format!("{}: others may write it (mode {mode:o})", path.display()));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(wrong)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{}: larger than {MAX_FILE} bytes", path.display()));
    }
    Ok((Stamp::of(&found), text))
}

/// The lines that make sense, and what is wrong with the others.
fn parse(text: &str) -> (Vec<Entry>, Vec<String>) {
    let (mut entries, mut mistakes) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line) {
            Ok(_) if entries.len() == MAX_TOKENS => {
                mistakes.push(format!("line {}: more than {MAX_TOKENS} tokens", at + 1));
                break;
            }
            Ok(entry) => entries.push(entry),
            Err(error) => mistakes.push(format!("line {}: {error}", at + 1)),
        }
    }
    (entries, mistakes)
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [name, role, digest] = words.as_slice() else {
        return Err("write `name role sha256-of-the-token`");
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@:/".contains(&byte);
    if name.len() > MAX_NAME || !name.bytes().all(named) {
        return Err("the name may have 63 letters, digits and -._@:/");
    }
    let role = match *role {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => return Err("the role is `read` or `write`"),
    };
    let digest = hexadecimal(digest).ok_or("the third word is 64 hexadecimal digits")?;
    Ok(Entry { holder: Holder { name: (*name).into(), role }, digest })
}

fn hexadecimal(text: &str) -> Option<[u8; DIGEST]> {
    if text.len() != 2 * DIGEST || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; DIGEST];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// How many tokens a file gives, and how many mistakes it has.
#[cfg(test)]
pub(super) fn counted(text: &str) -> (usize, usize) {
    let (entries, mistakes) = parse(text);
    (entries.len(), mistakes.len())
}

#[cfg(test)]
mod tests;
