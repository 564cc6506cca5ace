//! JSON as the data path reads it: a member that is missing or of the wrong type reads as zero,
//! false or nothing. Only a text that a command cannot do without makes the command invalid.

use std::fmt;

use outrider_model::MacAddr;
use serde::{
    Deserialize,
    de::{Deserializer as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::TextIp;
use crate::{
    List, WireError,
    error::within,
    limits::{MAX_COMMANDS, MAX_NESTING, MAX_REQUEST},
};

/// The members of a datagram in order; of equal names the last one, in the place of the first.
pub(crate) fn members(datagram: &[u8]) -> Result<Vec<(String, Value)>, WireError> {
    if datagram.len() > MAX_REQUEST {
        return Err(WireError::TooLong(datagram.len()));
    }
    check_nesting(datagram)?;
    let mut json = serde_json::Deserializer::from_slice(datagram);
    let found = json
        .deserialize_any(Commands)
        .map_err(|_text| WireError::Json)?;
    json.end().map_err(|_trailing| WireError::Json)?;
    within("commands", found.len(), MAX_COMMANDS)?;
    Ok(found)
}

/// Refuses nesting above the cap before anything recurses into it.
pub(crate) fn check_nesting(json: &[u8]) -> Result<(), WireError> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth = depth.saturating_add(1),
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(WireError::Nesting);
        }
    }
    Ok(())
}

/// Takes an object's members, and nothing of an array.
struct Commands;

impl<'de> Visitor<'de> for Commands {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            match members.iter_mut().find(|(known, _)| *known == name) {
                Some((_, earlier)) => *earlier = value,
                None => members.push((name, value)),
            }
        }
        Ok(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<Checked>()?.is_some() {}
        Ok(Vec::new())
    }
}

/// Any valid JSON, thrown away. (`IgnoredAny` itself would not check that text is UTF-8.)
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|_checked| Self)
    }
}

/// The arguments of a command.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    /// What is no object has no members.
    pub(crate) fn of(value: &'a Value) -> Self {
        Self(value.as_object())
    }

    fn get(self, name: &str) -> Option<&'a Value> {
        self.0.and_then(|members| members.get(name))
    }

    fn int_bytes(self, name: &str) -> [u8; 8] {
        let value = self.get(name).and_then(Value::as_i64);
        value.unwrap_or_default().to_le_bytes()
    }

    /// An integer's low 8 bits.
    pub(crate) fn u8(self, name: &str) -> u8 {
        let [low, ..] = self.int_bytes(name);
        low
    }

    /// An integer's low 16 bits.
    pub(crate) fn u16(self, name: &str) -> u16 {
        let [a, b, ..] = self.int_bytes(name);
        u16::from_le_bytes([a, b])
    }

    /// An integer's low 32 bits.
    pub(crate) fn u32(self, name: &str) -> u32 {
        let [a, b, c, d, ..] = self.int_bytes(name);
        u32::from_le_bytes([a, b, c, d])
    }

    /// A whole number of 64 bits, if it is one.
    pub(crate) fn u64(self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::as_u64)
    }

    /// True or false, if it is either.
    pub(crate) fn switch(self, name: &str) -> Option<bool> {
        self.get(name).and_then(Value::as_bool)
    }

    /// True only if it is.
    pub(crate) fn is_true(self, name: &str) -> bool {
        self.switch(name).unwrap_or_default()
    }

    /// A text that the command cannot do without.
    pub(crate) fn text(self, name: &'static str) -> Result<&'a str, WireError> {
        text(self.get(name), name)
    }

    /// A text that may be absent, but not anything else.
    pub(crate) fn text_if_any(self, name: &'static str) -> Result<Option<&'a str>, WireError> {
        self.get(name)
            .map(|value| text(Some(value), name))
            .transpose()
    }

    /// A text, or an empty one.
    pub(crate) fn text_or_empty(self, name: &'static str) -> Result<&'a str, WireError> {
        match self.get(name) {
            Some(value @ Value::String(_)) => text(Some(value), name),
            _ => Ok(""),
        }
    }

    /// A text no longer than `cap`.
    pub(crate) fn short_text(self, name: &'static str, cap: usize) -> Result<String, WireError> {
        let text = self.text(name)?;
        within(name, text.len(), cap)?;
        Ok(text.to_owned())
    }

    /// A MAC address that the command cannot do without.
    pub(crate) fn mac(self, name: &'static str) -> Result<MacAddr, WireError> {
        self.text(name)?
            .parse()
            .map_err(|_no_mac| WireError::BadValue(name))
    }

    /// A text that the command cannot do without, but that need not be a MAC address.
    pub(crate) fn mac_if_any(self, name: &'static str) -> Result<Option<MacAddr>, WireError> {
        self.text(name).map(|text| text.parse().ok())
    }

    /// A MAC address, if it is one.
    pub(crate) fn mac_or_none(self, name: &'static str) -> Option<MacAddr> {
        self.text_or_empty(name)
            .ok()
            .and_then(|text| text.parse().ok())
    }

    /// An address that the command cannot do without.
    pub(crate) fn ip(self, name: &'static str) -> Result<TextIp, WireError> {
        TextIp::parse(self.text(name)?).ok_or(WireError::BadValue(name))
    }

    /// An address that may be absent, but not anything else than text.
    pub(crate) fn ip_if_any(self, name: &'static str) -> Result<Option<TextIp>, WireError> {
        let address = |text| TextIp::parse(text).ok_or(WireError::BadValue(name));
        self.text_if_any(name)?.map(address).transpose()
    }

    /// A list; nil if it is none.
    pub(crate) fn list<T>(
        self,
        name: &str,
        mut item: impl FnMut(&'a Value) -> Result<T, WireError>,
    ) -> Result<List<T>, WireError> {
        match self.get(name).and_then(Value::as_array) {
            Some(values) => values.iter().map(&mut item).collect::<Result<_, _>>(),
            None => Ok(List::nil()),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(self, name: &'static str) -> Result<List<String>, WireError> {
        self.list(name, |value| text(Some(value), name).map(str::to_owned))
    }

    /// A list of numbers.
    pub(crate) fn numbers(self, name: &'static str) -> Result<List<u32>, WireError> {
        self.list(name, |value| {
            let [a, b, c, d, ..] = value.as_i64().unwrap_or_default().to_le_bytes();
            Ok(u32::from_le_bytes([a, b, c, d]))
        })
    }

    /// A list of MAC addresses; empty texts in it are nil addresses and mean nobody.
    pub(crate) fn macs(self, name: &'static str) -> Result<List<MacAddr>, WireError> {
        let texts = self.list(name, |value| text(Some(value), name))?;
        if texts.is_nil() {
            return Ok(List::nil());
        }
        let named = texts.into_iter().filter(|text| !text.is_empty());
        named
            .map(|text| text.parse().map_err(|_no_mac| WireError::BadValue(name)))
            .collect()
    }
}

/// A NUL would end the text early for some readers and not for others.
fn text<'a>(value: Option<&'a Value>, name: &'static str) -> Result<&'a str, WireError> {
    let text = value
        .and_then(Value::as_str)
        .ok_or(WireError::Missing(name))?;
    if text.contains('\0') { Err(WireError::BadValue(name)) } else { Ok(text) }
}
