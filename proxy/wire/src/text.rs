//! Text in a field of fixed size.

use std::borrow::Cow;

use crate::{Reader, WireError, Writer};

/// NUL-terminated text in a field of `N` bytes. Kept as bytes: a peer may send any, and a log is
/// not lost because of one.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Text<const N: usize>(Box<[u8]>);

impl<const N: usize> Text<N> {
    /// Takes a text whole, or not at all.
    ///
    /// # Errors
    /// [`WireError::Text`] if it is longer than the field without its NUL, or has a NUL inside.
    pub fn exact(text: &str) -> Result<Self, WireError> {
        Self::of_bytes(text.as_bytes())
    }

    /// Takes as much of a text as fits, up to the first NUL.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        let text = text.split('\0').next().unwrap_or_default();
        let fits = text.floor_char_boundary(N.saturating_sub(1));
        Self(text.as_bytes().get(..fits).unwrap_or_default().into())
    }

    /// The text; bytes that are not UTF-8 show as U+FFFD.
    #[must_use]
    pub fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The bytes before the NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() < N && !bytes.contains(&0) {
            Ok(Self(bytes.into()))
        } else {
            Err(WireError::Text)
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let field = reader.bytes(N)?;
        let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
        Self::of_bytes(text)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.padded(&self.0, N);
    }
}
