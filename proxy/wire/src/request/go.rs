//! JSON as Go's standard encoder writes it.

use std::io;

use outrider_model::MacAddr;
use serde::{Serialize, Serializer};
use serde_json::ser::{Formatter, Serializer as JsonSerializer};

use crate::{List, WireError};

/// Compact, and escapes what Go escapes: `<`, `>`, `&` and the two Unicode line separators.
struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(found) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(found);
            writer.write_all(plain.as_bytes())?;
            let mut characters = special.chars();
            if let Some(escaped) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(escaped))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// One request: `{"key":arguments}`.
pub(super) fn request(key: &str, arguments: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut out = format!("{{\"{key}\":").into_bytes();
    let mut json = JsonSerializer::with_formatter(&mut out, Go);
    arguments
        .serialize(&mut json)
        .map_err(|_never_for_these_types| WireError::Json)?;
    out.push(b'}');
    Ok(out)
}

/// A MAC address as text.
struct MacText(MacAddr);

impl Serialize for MacText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

pub(super) fn mac<S: Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
    MacText(*mac).serialize(serializer)
}

pub(super) fn mac_or_empty<S: Serializer>(
    mac: &Option<MacAddr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match mac {
        Some(mac) => MacText(*mac).serialize(serializer),
        None => serializer.serialize_str(""),
    }
}

pub(super) fn macs<S: Serializer>(macs: &List<MacAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    if macs.is_nil() {
        serializer.serialize_none()
    } else {
        serializer.collect_seq(macs.iter().copied().map(MacText))
    }
}
