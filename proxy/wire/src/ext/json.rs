//! Bodies that are JSON text.

use outrider_model::MacAddr;
use serde::{Deserialize, Serialize};

use crate::{Reader, WireError, Writer, error::within, limits::MAX_TEXT, request::fields};

/// Reads the rest of a message.
pub(super) fn read<T: for<'de> Deserialize<'de>>(reader: &mut Reader<'_>) -> Result<T, WireError> {
    let text = reader.rest();
    fields::check_nesting(text)?;
    if text.first() != Some(&b'{') {
        return Err(WireError::Json); // serde would take a list for an object
    }
    serde_json::from_slice(text).map_err(|_text| WireError::Json)
}

/// Writes it.
pub(super) fn write(body: &impl Serialize, writer: &mut Writer) -> Result<(), WireError> {
    let text = serde_json::to_vec(body).map_err(|_never_for_these_types| WireError::Json)?;
    writer.bytes(&text);
    Ok(())
}

/// Refuses a text above the cap.
pub(super) fn short(text: &str) -> Result<(), WireError> {
    within("text bytes", text.len(), MAX_TEXT)
}

/// MAC addresses as text.
pub(super) mod macs {
    use serde::{Deserializer, Serializer, de::Error};

    use super::{Deserialize, MacAddr};

    pub(in crate::ext) fn serialize<S: Serializer>(
        macs: &[MacAddr],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(macs.iter().map(MacAddr::to_string))
    }

    pub(in crate::ext) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<MacAddr>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}
