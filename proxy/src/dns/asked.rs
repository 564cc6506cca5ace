//! One question on its way: what was asked, and whether an answer belongs to it.

use outrider_dpi::dns_message::{DNS_HEADER, DnsHeader, DnsQuestion};
use outrider_policy::Name;

#[cfg(test)]
mod tests;

/// A question as it came, to be sent on under an id of our own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    message: Vec<u8>,
    id: u16,
    /// Where the question ends, if the message has exactly one that can be read.
    end: Option<usize>,
    name: Option<Name>,
}

/// What an answer means for who waits for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    /// The server answers, be it that the name does not exist.
    Answer,
    /// The server could or would not answer: another one may.
    Failure,
}

impl Asked {
    /// Takes a message that is at least a header and no answer. One whose question cannot be read
    /// is sent on too: what to make of it is the server's business.
    #[must_use]
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let header = DnsHeader::read(message).filter(|header| !header.is_answer())?;
        let question = DnsQuestion::read(message);
        let name = question
            .as_ref()
            .and_then(|(question, _)| question.name.without_service().text())
            .and_then(|text| Name::new(&text).ok());
        let end = question.map(|(_, end)| end);
        Some(Self { message: message.to_vec(), id: header.id, end, name })
    }

    /// The name whose addresses an answer would tell.
    #[must_use]
    pub(crate) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// Its own id.
    #[must_use]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// The message under another id, otherwise as it came.
    #[must_use]
    pub(crate) fn under(&self, id: u16) -> Vec<u8> {
        with_id(self.message.clone(), id)
    }

    /// What is said when no server is there: as quickly as the network would have said it.
    #[must_use]
    pub(crate) fn failure(&self) -> Vec<u8> {
        let flags = DnsHeader::read(&self.message).map_or(0, |header| header.flags);
        let flags = IS_ANSWER | (flags & KEPT_FLAGS) | u16::from(SERVER_FAILURE);
        let mut message = [self.id.to_be_bytes(), flags.to_be_bytes()].concat();
        message.extend([0, self.end.is_some().into(), 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(
            self.end
                .and_then(|end| self.message.get(DNS_HEADER..end))
                .unwrap_or_default(),
        );
        message
    }

    /// Whether a message answers this question, asked under `id`, and what it means. An error
    /// without a question is an answer too: a server that could not read it has none to repeat.
    #[must_use]
    pub(crate) fn meaning(&self, answer: &[u8], id: u16) -> Option<Meaning> {
        let header = DnsHeader::read(answer)?;
        if !header.is_answer() || header.id != id {
            return None;
        }
        let error = header.rcode() != 0;
        let repeats = match self.end {
            Some(end) => self.is_repeated(answer, end) || (header.questions == 0 && error),
            None => true,
        };
        let failed = matches!(header.rcode(), SERVER_FAILURE | NOT_IMPLEMENTED | REFUSED);
        repeats.then_some(if failed { Meaning::Failure } else { Meaning::Answer })
    }

    /// Servers may change the case of a name, and nothing else of a question.
    fn is_repeated(&self, answer: &[u8], end: usize) -> bool {
        let split = |message: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
            let (name, kind) = message.get(DNS_HEADER..end)?.split_last_chunk::<4>()?;
            Some((name.to_ascii_lowercase(), kind.to_vec()))
        };
        let counts = DnsHeader::read(answer).is_some_and(|header| header.questions == 1);
        counts && split(&self.message).is_some_and(|asked| split(answer) == Some(asked))
    }
}

/// A message under another id, otherwise as it is.
#[must_use]
pub(crate) fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
    message
}

/// The bit that tells answers from questions.
const IS_ANSWER: u16 = 0x8000;
/// What an answer repeats of a question's flags: operation, recursion desired.
const KEPT_FLAGS: u16 = 0x7900;
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;
