//! Messages over TCP: each behind its length, cut anywhere.

/// Finds the messages in a stream. Holds at most one message and its length.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    /// Shows a chunk of the stream; `each` gets every message that is complete with it.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], mut each: impl FnMut(&[u8])) {
        while !chunk.is_empty() {
            let wanted = self.wanted();
            let (head, rest) = chunk.split_at(wanted.min(chunk.len()));
            self.0.extend_from_slice(head);
            chunk = rest;
            if self.wanted() == 0 {
                each(self.0.get(LENGTH..).unwrap_or_default());
                self.0.clear();
            }
        }
    }

    /// Bytes until the next thing is known: the length, or the end of the message.
    fn wanted(&self) -> usize {
        let whole = match self.0.first_chunk() {
            Some(length) => LENGTH.saturating_add(u16::from_be_bytes(*length).into()),
            None => LENGTH,
        };
        whole.saturating_sub(self.0.len())
    }
}

/// Bytes of a length.
const LENGTH: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for chunk in stream.chunks(size) {
            frames.feed(chunk, |message| found.push(message.to_vec()));
        }
        found
    }

    #[test]
    fn finds_messages_wherever_the_stream_is_cut() {
        let mut stream = b"\0\x03abc\0\0\0\x01d\x01\x00".to_vec();
        stream.extend([b'x'; 256]);
        stream.extend(b"\0\x05cut");
        let whole = messages(&stream, usize::MAX);
        assert_eq!(whole, [b"abc".to_vec(), Vec::new(), b"d".to_vec(), vec![b'x'; 256]]);
        for size in 1..20 {
            assert_eq!(messages(&stream, size), whole, "chunks of {size}");
        }
    }

    #[test]
    fn holds_one_message_at_most() {
        let mut frames = Frames::default();
        let stream = vec![0xff; 200_000];
        let mut found = 0;
        for chunk in stream.chunks(1_000) {
            frames.feed(chunk, |message| found += message.len());
            assert!(frames.0.len() <= LENGTH + usize::from(u16::MAX));
        }
        assert_eq!(found, 3 * usize::from(u16::MAX));
        assert!(!frames.0.is_empty());
    }
}
