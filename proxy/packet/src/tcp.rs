//! States of the two sides of a TCP connection.

use std::time::Duration;

use outrider_model::Side;

use crate::transport::Flags;

/// State of one side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum State {
    #[default]
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    LastAck,
    TimeWait,
    Closed,
}

/// Both sides of a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct States {
    client: State,
    server: State,
}

/// What a segment changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Change {
    /// A handshake in an order in which no server answers.
    pub(crate) split: bool,
}

impl States {
    /// Before the first SYN was seen.
    pub(crate) const NEW: Self = Self { client: State::SynSent, server: State::Listen };
    /// A connection whose beginning was not seen.
    pub(crate) const MID_STREAM: Self =
        Self { client: State::Established, server: State::Established };

    /// Takes a segment of one side.
    pub(crate) fn advance(&mut self, side: Side, flags: Flags) -> Change {
        let mut change = Change::default();
        if flags.rst() {
            *self = Self { client: State::Closed, server: State::Closed };
            return change;
        }
        if flags.syn() {
            change.split = self.synchronise(side, flags.ack());
            return change;
        }
        // Whatever sends data or an end has seen the handshake through.
        if flags.ack() && self.is_opening() {
            if side == Side::Client && self.server == State::Listen {
                return change;
            }
            *self = Self::MID_STREAM;
        }
        if flags.fin() {
            self.finish(side);
        } else if flags.ack() {
            self.acknowledge(side);
        }
        change
    }

    /// A SYN; whether it splits the handshake.
    fn synchronise(&mut self, side: Side, ack: bool) -> bool {
        match (side, ack) {
            (Side::Server, true) if self.client == State::SynReceived => {
                *self = Self::MID_STREAM;
                return true;
            }
            (Side::Server, true) if self.client == State::SynSent => {
                self.client = State::Established;
                self.server = State::SynReceived;
            }
            // Both opened at once, or the server answers in two steps.
            (Side::Server, false) if self.client == State::SynSent => {
                self.client = State::SynReceived;
                self.server = State::SynSent;
            }
            (Side::Server, false) if self.server == State::SynReceived => {
                self.server = State::Established;
                return true;
            }
            (Side::Client, true) if self.server == State::SynSent => {
                self.server = State::Established;
            }
            _ => {}
        }
        false
    }

    fn finish(&mut self, side: Side) {
        let (own, other) = self.both(side);
        match *other {
            State::FinWait1 | State::FinWait2 => {
                *own = State::LastAck;
                *other = State::FinWait2;
            }
            State::Closed | State::LastAck | State::TimeWait => {}
            _ => {
                *own = State::FinWait1;
                *other = State::CloseWait;
            }
        }
    }

    fn acknowledge(&mut self, side: Side) {
        let (own, other) = self.both(side);
        match *other {
            State::FinWait1 => {
                *own = State::CloseWait;
                *other = State::FinWait2;
            }
            State::LastAck => {
                *other = State::Closed;
                *own = State::TimeWait;
            }
            _ => {}
        }
    }

    fn both(&mut self, side: Side) -> (&mut State, &mut State) {
        match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }

    fn is_opening(self) -> bool {
        matches!(self.client, State::SynSent | State::SynReceived)
            || matches!(self.server, State::Listen | State::SynSent | State::SynReceived)
    }

    /// Whether the handshake was seen through.
    pub(crate) fn is_established(self) -> bool {
        !self.is_opening()
    }

    /// Whether both sides have ended, or one has reset the connection.
    pub(crate) fn is_over(self) -> bool {
        let over = |state| matches!(state, State::Closed | State::LastAck | State::TimeWait);
        over(self.client) || over(self.server)
    }

    /// How long the connection may be silent.
    pub(crate) fn patience(self) -> Duration {
        let half = |state| matches!(state, State::FinWait1 | State::FinWait2);
        Duration::from_secs(if self.is_over() {
            15
        } else if half(self.client) || half(self.server) {
            90
        } else if self.is_opening() {
            20
        } else {
            1200
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIN: Flags = Flags(0x11);
    const SYN: Flags = Flags(0x02);
    const RST: Flags = Flags(0x04);
    const ACK: Flags = Flags(0x10);
    const SYN_ACK: Flags = Flags(0x12);

    fn after(steps: &[(Side, Flags)]) -> (States, bool) {
        let mut states = States::NEW;
        let mut split = false;
        for (side, flags) in steps {
            split |= states.advance(*side, *flags).split;
        }
        (states, split)
    }

    const C: Side = Side::Client;
    const S: Side = Side::Server;

    #[test]
    fn opens_and_closes_as_connections_do() {
        let (states, split) = after(&[(C, SYN), (S, SYN_ACK), (C, ACK)]);
        assert_eq!((states, split), (States::MID_STREAM, false));
        let open = [(C, SYN), (S, SYN_ACK), (C, ACK)];
        let (half, _) = after(&[&open[..], &[(C, FIN)]].concat());
        assert_eq!(half.patience().as_secs(), 90);
        let (acked, _) = after(&[&open[..], &[(C, FIN), (S, ACK)]].concat());
        assert_eq!(acked.patience().as_secs(), 90);
        let (both, _) = after(&[&open[..], &[(C, FIN), (S, FIN)]].concat());
        assert!(both.is_over());
        let (all, _) = after(&[&open[..], &[(C, FIN), (S, ACK), (S, FIN), (C, ACK)]].concat());
        assert_eq!((all.is_over(), all.patience().as_secs()), (true, 15));
    }

    #[test]
    fn a_reset_ends_it_at_once() {
        let (states, _) = after(&[(C, SYN), (S, RST)]);
        assert_eq!((states.is_over(), states.patience().as_secs()), (true, 15));
    }

    #[test]
    fn an_unanswered_handshake_is_soon_forgotten() {
        for steps in [&[(C, SYN)][..], &[(C, SYN), (S, SYN_ACK)], &[(C, SYN), (C, ACK)]] {
            let (states, _) = after(steps);
            assert_eq!((states.is_established(), states.patience().as_secs()), (false, 20));
        }
    }

    #[test]
    fn split_handshakes_are_noticed() {
        assert!(after(&[(C, SYN), (S, SYN), (S, SYN_ACK)]).1);
        assert!(after(&[(C, SYN), (S, SYN_ACK), (S, SYN)]).1);
        assert!(!after(&[(C, SYN), (S, SYN), (C, SYN_ACK), (S, ACK)]).1, "opened at once");
        assert!(!after(&[(C, SYN), (S, SYN_ACK), (S, SYN_ACK), (C, ACK)]).1, "sent again");
    }
}
