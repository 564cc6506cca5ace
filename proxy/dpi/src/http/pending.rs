//! Which requests wait for their response: a response's framing depends on them.

/// What matters of a request for its response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing special.
    Plain,
    /// The response has no body.
    Head,
    /// A success ends HTTP on this flow.
    Connect,
    /// A 101 ends HTTP on this flow.
    Upgrade,
}

/// Most requests that may wait, from the first that is not plain; plain ones behind that many are
/// merely counted.
pub(super) const MAX_PENDING: u32 = u128::BITS / BITS;

/// Bits per request.
const BITS: u32 = 2;

/// A queue of kinds, two bits each, without a heap.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: u128,
    len: u32,
    plain_behind: u32,
}

impl Pending {
    /// Adds a request; `false` if it can't be kept, and the queue is of no use any more.
    pub(super) fn push(&mut self, kind: Kind) -> bool {
        if self.len < MAX_PENDING && self.plain_behind == 0 {
            let shift = self.len.saturating_mul(BITS);
            self.queue |= u128::from(kind as u8)
                .checked_shl(shift)
                .unwrap_or_default();
            self.len = self.len.saturating_add(1);
            return true;
        }
        if kind != Kind::Plain {
            return false;
        }
        let behind = self.plain_behind.checked_add(1);
        self.plain_behind = behind.unwrap_or(self.plain_behind);
        behind.is_some()
    }

    /// Takes the oldest request; one that nobody asked for is plain.
    pub(super) fn pop(&mut self) -> Kind {
        if self.len == 0 {
            self.plain_behind = self.plain_behind.saturating_sub(1);
            return Kind::Plain;
        }
        let kind = match self.queue & 3 {
            0 => Kind::Plain,
            1 => Kind::Head,
            2 => Kind::Connect,
            _ => Kind::Upgrade,
        };
        self.queue = self.queue.checked_shr(BITS).unwrap_or_default();
        self.len = self.len.saturating_sub(1);
        kind
    }

    /// Whether a request waits whose response may end HTTP on this flow. The high bit of a pair is
    /// set for just these two kinds.
    pub(super) fn may_switch(&self) -> bool {
        self.queue & (u128::MAX / 3 * 2) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_kinds() {
        let mut pending = Pending::default();
        let kinds = [Kind::Head, Kind::Plain, Kind::Upgrade, Kind::Connect];
        assert!(kinds.into_iter().all(|kind| pending.push(kind)));
        assert!(pending.may_switch());
        assert_eq!(kinds.map(|_| pending.pop()), kinds);
        assert!(!pending.may_switch());
        assert_eq!(pending.pop(), Kind::Plain);
    }

    #[test]
    fn counts_plain_requests_beyond_the_queue_and_refuses_others() {
        let mut pending = Pending::default();
        for _ in 0..MAX_PENDING {
            assert!(pending.push(Kind::Head));
        }
        assert!(!pending.push(Kind::Head));
        assert!(pending.push(Kind::Plain));
        assert!(!pending.push(Kind::Connect), "order would be lost");
        for _ in 0..MAX_PENDING {
            assert_eq!(pending.pop(), Kind::Head);
        }
        assert!(!pending.push(Kind::Head), "a plain one is still before it");
        assert_eq!(pending.pop(), Kind::Plain);
        assert!(pending.push(Kind::Head));
    }
}
