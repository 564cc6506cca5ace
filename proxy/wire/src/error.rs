//! What can be wrong with a message.

/// Why bytes are no message, or a message has no bytes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The datagram ends inside a field, or before the length it declares.
    #[error("the message is truncated")]
    Truncated,
    /// The datagram goes on after the message.
    #[error("bytes follow the message")]
    Trailing,
    /// The datagram is longer than any message may be; ours, if it was to be sent.
    #[error("{0} bytes are more than a datagram may have")]
    TooLong(usize),
    /// A kind this build does not know: to be ignored.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// A known kind that has no place on this socket, or is not the one asked for.
    #[error("kind {0} was not expected here")]
    WrongKind(u8),
    /// More of something than its cap.
    #[error("{count} {what} are more than {cap}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        cap: usize,
    },
    /// A text is not terminated, or too long for its field.
    #[error("a text does not fit its field")]
    Text,
    /// The datagram is not one JSON object or array.
    #[error("the request is not JSON")]
    Json,
    /// Arrays and objects are nested deeper than the cap.
    #[error("the request is nested too deeply")]
    Nesting,
    /// A key this build does not know: to be ignored.
    #[error("unknown request")]
    UnknownKey,
    /// A text that the command cannot do without is missing or not a text.
    #[error("member `{0}` is missing or not a text")]
    Missing(&'static str),
    /// A text says nothing that its member may say.
    #[error("member `{0}` has no usable value")]
    BadValue(&'static str),
    /// A chunk without START, and nothing to add it to.
    #[error("a chunk continues nothing")]
    NoStart,
}

impl WireError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::TooLong(_) => "too-long",
            Self::UnknownKind(_) => "unknown-kind",
            Self::WrongKind(_) => "wrong-kind",
            Self::TooMany { .. } => "too-many",
            Self::Text => "text",
            Self::Json => "json",
            Self::Nesting => "nesting",
            Self::UnknownKey => "unknown-key",
            Self::Missing(_) => "missing",
            Self::BadValue(_) => "bad-value",
            Self::NoStart => "no-start",
        }
    }

    /// Whether an older or newer peer may send this in good faith: ignored, not blamed.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::UnknownKind(_) | Self::UnknownKey)
    }
}

/// Refuses more than `cap` of `what`.
pub(crate) fn within(what: &'static str, count: usize, cap: usize) -> Result<(), WireError> {
    if count > cap { Err(WireError::TooMany { what, count, cap }) } else { Ok(()) }
}
