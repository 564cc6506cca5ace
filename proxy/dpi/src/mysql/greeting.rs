//! The server's first packet, which is how MySQL is recognised.

use crate::{
    bytes::Reader,
    recognise::{Guess, Prefix},
};

/// Longest first packet: MariaDB's version strings get long.
const MAX_GREETING: u32 = 512;

/// Longest version string.
const MAX_VERSION: usize = 128;

const PLUGIN_AUTH: u32 = 0x0008_0000;
const SECURE_CONNECTION: u32 = 0x0000_8000;

/// Errors that a server sends instead of a greeting: too many connections, host blocked, host not
/// allowed, too many connections of a user, server shutting down.
const REFUSALS: [u16; 5] = [1040, 1129, 1130, 1203, 1053];

/// Whether a server's first bytes are a greeting of protocol 9 or 10, complete and with nothing behind
/// it, or a refusal.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let prefix = prefix.bytes;
    let mut reader = Reader::new(prefix);
    let Some(length) = reader.le24() else {
        // The third byte of a length below 512 is zero, the second at most two.
        let plausible = prefix.get(1).is_none_or(|byte| *byte <= 2);
        return if plausible { Guess::More } else { Guess::No };
    };
    if !(1..=MAX_GREETING).contains(&length) || reader.u8().is_some_and(|sequence| sequence != 0) {
        return Guess::No;
    }
    let body = reader.rest();
    if body
        .first()
        .is_some_and(|protocol| ![9, 10, 0xff].contains(protocol))
    {
        return Guess::No;
    }
    let Some(body) = usize::try_from(length)
        .ok()
        .and_then(|length| body.get(..length))
    else {
        return Guess::More;
    };
    let complete = match body.split_first() {
        Some((9, rest)) => version_9(Reader::new(rest)),
        Some((10, rest)) => version_10(Reader::new(rest)),
        Some((0xff, rest)) => refusal(Reader::new(rest)),
        _ => None,
    };
    if complete == Some(true) { Guess::Yes } else { Guess::No }
}

/// Version, thread, scramble; whether nothing follows.
fn version_9(mut reader: Reader<'_>) -> Option<bool> {
    version(&mut reader)?;
    reader.take(4)?;
    reader.until_nul()?;
    Some(reader.is_empty())
}

/// Version, thread, scramble, capabilities and what they announce; whether nothing follows.
fn version_10(mut reader: Reader<'_>) -> Option<bool> {
    version(&mut reader)?;
    reader.take(4)?;
    reader.take(8)?;
    if reader.u8()? != 0 {
        return None;
    }
    let low = u32::from(reader.le16()?);
    if reader.is_empty() {
        return Some(true);
    }
    reader.take(3)?;
    let flags = low | u32::from(reader.le16()?).rotate_left(16);
    let scramble = reader.u8()?;
    reader.take(10)?;
    if flags & SECURE_CONNECTION != 0 {
        // The rest of the scramble: 12 bytes and a zero, unless more is announced.
        reader.take(usize::from(scramble).saturating_sub(8).max(13))?;
    }
    if flags & PLUGIN_AUTH != 0 {
        let rest = reader.rest();
        // A few old servers forget the zero after the name.
        let name = reader.until_nul().unwrap_or(rest);
        return Some(readable(name) && (reader.is_empty() || name.len() == rest.len()));
    }
    Some(reader.is_empty())
}

/// Code and text; whether it is one of those that come first.
fn refusal(mut reader: Reader<'_>) -> Option<bool> {
    let code = reader.le16()?;
    let text = reader.rest();
    Some(REFUSALS.contains(&code) && readable(text))
}

fn version(reader: &mut Reader<'_>) -> Option<()> {
    let text = reader.until_nul()?;
    let numbered = text.first()?.is_ascii_digit();
    (numbered && text.len() <= MAX_VERSION && readable(text)).then_some(())
}

/// Text without control characters.
fn readable(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| *byte >= b' ' && *byte != 0x7f)
}
