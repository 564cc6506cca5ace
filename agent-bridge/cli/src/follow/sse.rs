//! The form of server-sent events, as far as the bridge uses it.

use crate::client::Failure;

/// Longest line and longest event.
const MAX_EVENT: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) data: String,
}

/// Takes bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    /// The events that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Message>, Failure> {
        let mut messages = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() + self.message.data.len() > MAX_EVENT {
                return Err(Failure::Refused("the bridge's event is too large".into()));
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.take(String::from_utf8_lossy(&line).trim_end()));
            }
        }
        Ok(messages)
    }

    fn take(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.message.id = value.to_owned(),
            "event" => self.message.event = value.to_owned(),
            "data" => self.message.data.push_str(value),
            // A comment, or what a later bridge may say.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b": hello\n\nid: 1-0\nevent: flow\ndata: {\"a\": 1}\n\n: still here\n\nid:2\r\ndata:x\r\n\r\n";

    #[test]
    fn chunking_never_changes_the_events() {
        let whole = Parser::default().feed(STREAM).unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!((whole[0].id.as_str(), whole[0].data.as_str()), ("1-0", "{\"a\": 1}"));
        assert_eq!((whole[1].id.as_str(), whole[1].data.as_str()), ("2", "x"));
        for cut in 0..STREAM.len() {
            let mut parser = Parser::default();
            let mut found = parser.feed(&STREAM[..cut]).unwrap();
            found.extend(parser.feed(&STREAM[cut..]).unwrap());
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "a".repeat(1000));
        assert!((0..2000).any(|_| parser.feed(line.as_bytes()).is_err()));
        assert!(Parser::default().feed(&vec![b'a'; MAX_EVENT + 1]).is_err());
    }
}
