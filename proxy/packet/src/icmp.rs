//! ICMP of both families: which messages belong together, and what is hidden in them.

use std::hash::{DefaultHasher, Hash, Hasher};

use outrider_model::{IpProto, ThreatId};

use crate::transport::Icmp;

/// How a message takes part in a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Role {
    /// The client's port.
    pub(crate) id: u16,
    /// The server's port: code and type of the request.
    pub(crate) request: u16,
    pub(crate) is_reply: bool,
}

/// What a message is in its flow.
pub(crate) fn role(proto: IpProto, message: &Icmp<'_>) -> Role {
    let (kind, is_reply, has_id) = match (proto, message.kind) {
        (IpProto::ICMP, 8 | 13 | 15 | 17) | (IpProto::ICMPV6, 128) => (message.kind, false, true),
        (IpProto::ICMP, 0) => (8, true, true),
        (IpProto::ICMP, 14 | 16 | 18) => (message.kind.saturating_sub(1), true, true),
        (IpProto::ICMPV6, 129) => (128, true, true),
        _ => (message.kind, false, false),
    };
    Role {
        id: if has_id { message.id } else { 0 },
        request: u16::from_be_bytes([message.code, kind]),
        is_reply,
    }
}

/// What is remembered of a flow's echoes.
#[derive(Debug, Default)]
pub(crate) struct Echoes {
    request: Option<(u16, u64)>,
    different: u8,
}

/// Longest payload of a request that is none of a broken or hostile sender.
const MAX_PING: usize = 32_000;
/// So many replies in a row that differ from their requests make a tunnel.
const TUNNEL: u8 = 3;

/// Whether a request is longer than any program's.
pub(crate) fn too_long(role: Role, message: &Icmp<'_>) -> Option<(ThreatId, &'static str)> {
    let long = !role.is_reply && message.length > MAX_PING;
    long.then_some((ThreatId::PING_DEATH, "ICMP payload above 32000 bytes"))
}

impl Echoes {
    /// Looks at one message.
    pub(crate) fn look(
        &mut self,
        role: Role,
        message: &Icmp<'_>,
    ) -> Option<(ThreatId, &'static str)> {
        if let Some(found) = too_long(role, message) {
            return Some(found);
        }
        if message.payload.len() < message.length || !matches!(role.request, 8 | 128) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        message.payload.hash(&mut hasher);
        let seen = (message.sequence, hasher.finish());
        if !role.is_reply {
            self.request = Some(seen);
            return None;
        }
        let asked = self.request.take_if(|asked| asked.0 == seen.0)?;
        if asked == seen {
            self.different = 0;
            return None;
        }
        self.different = self.different.saturating_add(1);
        (self.different == TUNNEL)
            .then_some((ThreatId::ICMP_TUNNEL, "echo replies that differ from requests"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(kind: u8, sequence: u16, payload: &[u8]) -> Icmp<'_> {
        Icmp { kind, code: 0, id: 7, sequence, payload, length: payload.len() }
    }

    fn look(echoes: &mut Echoes, message: Icmp<'_>) -> Option<ThreatId> {
        echoes
            .look(role(IpProto::ICMP, &message), &message)
            .map(|(id, _)| id)
    }

    #[test]
    fn replies_belong_to_their_requests() {
        for (proto, request, reply) in
            [(IpProto::ICMP, 8, 0), (IpProto::ICMP, 13, 14), (IpProto::ICMPV6, 128, 129)]
        {
            let asked = role(proto, &echo(request, 1, b""));
            let answered = role(proto, &echo(reply, 1, b""));
            assert_eq!((asked.id, asked.request), (answered.id, answered.request));
            assert!(!asked.is_reply && answered.is_reply);
        }
        assert_eq!(role(IpProto::ICMP, &echo(3, 0, b"")).id, 0);
    }

    #[test]
    fn three_different_replies_in_a_row_make_a_tunnel() {
        let mut echoes = Echoes::default();
        let mut found = Vec::new();
        for (sequence, reply) in
            [(1, "b"), (2, "b"), (3, "a"), (4, "b"), (5, "b"), (6, "b"), (7, "b")]
        {
            assert_eq!(look(&mut echoes, echo(8, sequence, b"a")), None);
            found.push(look(&mut echoes, echo(0, sequence, reply.as_bytes())));
        }
        assert_eq!(found, [None, None, None, None, None, Some(ThreatId::ICMP_TUNNEL), None]);
    }

    #[test]
    fn a_huge_request_is_found() {
        let huge = vec![0; MAX_PING + 1];
        assert_eq!(look(&mut Echoes::default(), echo(8, 1, &huge)), Some(ThreatId::PING_DEATH));
        assert_eq!(look(&mut Echoes::default(), echo(8, 1, &huge[1..])), None);
    }
}
