//! Names, compressed or not.

use crate::bytes::Reader;

/// Bytes of a name with its length bytes and its root.
const MAX_NAME: usize = 255;

/// Pointers that one name may follow: each leads further back, so they end anyway.
const MAX_POINTERS: usize = 64;

/// A name as the wire has it, uncompressed, in lower case: equal names are equal bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct DnsName(Vec<u8>);

impl DnsName {
    /// Reads the name at a place of a message, with the place behind it. A pointer must lead to an
    /// earlier place than any before it, so that no name is without end.
    #[must_use]
    pub fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Vec::new();
        let (mut at, mut lowest, mut behind) = (at, at, None);
        for _ in 0..=MAX_POINTERS {
            let mut reader = Reader::new(message.get(at..)?);
            let target = labels(&mut reader, &mut name)?;
            let here = message.len().checked_sub(reader.rest().len())?;
            let behind = *behind.get_or_insert(here);
            let Some(target) = target else { return Some((Self(name), behind)) };
            if target >= lowest {
                return None;
            }
            (at, lowest) = (target, target);
        }
        None
    }

    /// The name as text without the final dot; `None` for the root and if a label has anything but
    /// letters, digits, `-` and `_`.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut text = String::with_capacity(self.0.len());
        for label in self.labels() {
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label {
                let usual = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                text.push(usual.then_some(char::from(*byte))?);
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// The name without the labels before the host's that say which service is meant: `_8443._https`.
    #[must_use]
    pub fn without_service(&self) -> Self {
        let service: usize = self
            .labels()
            .take_while(|label| label.first() == Some(&b'_'))
            .map(|label| label.len().saturating_add(1))
            .sum();
        Self(self.0.get(service..).unwrap_or(&self.0).to_vec())
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == [0]
    }

    fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.0);
        std::iter::from_fn(move || {
            let length = reader.u8().filter(|length| *length > 0)?;
            reader.take(length.into())
        })
    }
}

/// Appends labels up to the root, which is `Some(None)`, or to a pointer, which is its target.
fn labels(reader: &mut Reader<'_>, name: &mut Vec<u8>) -> Option<Option<usize>> {
    loop {
        let length = reader.u8()?;
        match length >> 6 {
            0 if length == 0 => {
                name.push(0);
                return (name.len() <= MAX_NAME).then_some(None);
            }
            0 => {
                let label = reader.take(length.into())?;
                name.push(length);
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() >= MAX_NAME {
                    return None;
                }
            }
            3 => return Some(Some(usize::from(u16::from_be_bytes([length & 0x3f, reader.u8()?])))),
            _ => return None,
        }
    }
}
