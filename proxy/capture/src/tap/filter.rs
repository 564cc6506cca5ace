//! What the tap wants to see, as a program that the kernel runs on each frame.

mod matching;

use outrider_model::PacketFilter;
use socket2::SockFilter;

use crate::CaptureError;

/// Which TCP segments the tap copies. Everything that is not TCP is always copied.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Filter {
    /// All of them.
    #[default]
    Everything,
    /// None: every connection of the pod crosses the proxy.
    NoTcp,
    /// None from or to these ports, and all others. Fragments, which may not tell their ports, are
    /// copied.
    NoTcpOf(Vec<u16>),
    /// Only those from or to these ports, fragments included: what the redirect rules leave out.
    NoTcpBut(Vec<u16>),
    /// Those from or to these ports, fragments included, and of all others what opens a connection or
    /// what no honest end sends: SYN whatever else is set, neither SYN nor ACK nor RST, RST with data.
    Openings(Vec<u16>),
    /// Whatever somebody asked for, be it TCP or not; of loopback only on request.
    Matching {
        /// What was asked for.
        packets: PacketFilter,
        /// Whether packets of loopback are copied too.
        loopback: bool,
    },
}

impl Filter {
    /// Compiles the filter; `snap` bytes of each frame are copied.
    ///
    /// TCP behind IPv6 extension headers is copied by every filter: no ordinary socket sends it. The
    /// copy of a frame that leaves by loopback is left out, since the same frame comes in again.
    pub(super) fn compile(&self, snap: u32) -> Result<Vec<SockFilter>, CaptureError> {
        if let Self::Matching { packets, loopback } = self {
            return Ok(matching::compile(packets, *loopback, snap));
        }
        let mut program = Program::default();
        program.skip_loopback_copies();
        match self {
            Self::Everything | Self::Matching { .. } => {}
            Self::NoTcp => program.tcp(&[], None)?,
            Self::NoTcpOf(ports) => program.tcp(ports, Some(To::Drop))?,
            Self::NoTcpBut(ports) => program.tcp(ports, Some(To::Pass))?,
            Self::Openings(ports) => program.openings(ports)?,
        }
        Ok(program.finish(snap))
    }

    /// Copies nothing at all.
    pub(crate) fn nothing() -> [SockFilter; 1] {
        [SockFilter::new(RETURN, 0, 0, 0)]
    }

    /// Copies everything, from the first byte to the last.
    pub(crate) fn whole() -> [SockFilter; 1] {
        [SockFilter::new(RETURN, 0, 0, u32::MAX)]
    }
}

/// Ports that a filter may name. A jump reaches 255 instructions; a port takes two.
pub const MAX_FILTER_PORTS: usize = 64;

/// Where a jump goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum To {
    Next,
    Pass,
    Drop,
    /// So many instructions ahead.
    Skip(u8),
}

#[derive(Debug)]
struct Step {
    code: u16,
    k: u32,
    yes: To,
    no: To,
}

#[derive(Debug, Default)]
struct Program(Vec<Step>);

impl Program {
    fn push(&mut self, code: u16, k: u32) {
        self.0.push(Step { code, k, yes: To::Next, no: To::Next });
    }

    fn jump(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.0.push(Step { code, k, yes, no });
    }

    fn skip_loopback_copies(&mut self) {
        self.push(LOAD_WORD, HARDWARE_TYPE);
        self.jump(JUMP_EQUAL, u32::from(libc::ARPHRD_LOOPBACK), To::Next, To::Skip(2));
        self.push(LOAD_WORD, PACKET_TYPE);
        self.jump(JUMP_EQUAL, OUTGOING, To::Drop, To::Next);
    }

    /// Sends TCP on a port of the list to `hit` and other TCP to the opposite; without `hit` all TCP
    /// is dropped.
    fn tcp(&mut self, ports: &[u16], hit: Option<To>) -> Result<(), CaptureError> {
        let Some(hit) = hit else {
            self.push(LOAD_WORD, PROTOCOL);
            self.jump(JUMP_EQUAL, IPV4, To::Next, To::Skip(2));
            self.push(LOAD_BYTE, NETWORK + 9);
            self.jump(JUMP_EQUAL, TCP, To::Drop, To::Pass);
            self.jump(JUMP_EQUAL, IPV6, To::Next, To::Pass);
            self.push(LOAD_BYTE, NETWORK + 6);
            self.jump(JUMP_EQUAL, TCP, To::Drop, To::Pass);
            return Ok(());
        };
        self.ports(ports, hit)?;
        let miss = if hit == To::Drop { To::Pass } else { To::Drop };
        self.jump(JUMP_EQUAL, ANY, miss, miss);
        Ok(())
    }

    /// Sends a TCP segment on a port of the list to `hit`; others go on, with the length of their IP
    /// header in the index.
    fn ports(&mut self, ports: &[u16], hit: To) -> Result<(), CaptureError> {
        if ports.len() > MAX_FILTER_PORTS {
            return Err(CaptureError::Setting("a tap's filter may name 64 ports at most"));
        }
        self.push(LOAD_WORD, PROTOCOL);
        self.jump(JUMP_EQUAL, IPV4, To::Next, To::Skip(9));
        self.push(LOAD_BYTE, NETWORK + 9);
        self.jump(JUMP_EQUAL, TCP, To::Next, To::Pass);
        self.push(LOAD_HALF, NETWORK + 6);
        self.jump(JUMP_ANY_BIT, FRAGMENT, To::Pass, To::Next);
        self.push(LOAD_BYTE, NETWORK);
        self.push(AND, 0x0f);
        self.push(SHIFT_LEFT, 2);
        self.push(COPY_TO_INDEX, 0);
        self.jump(JUMP_EQUAL, ANY, To::Skip(4), To::Skip(4));
        self.jump(JUMP_EQUAL, IPV6, To::Next, To::Pass);
        self.push(LOAD_BYTE, NETWORK + 6);
        self.jump(JUMP_EQUAL, TCP, To::Next, To::Pass);
        self.push(SET_INDEX, V6_HEADER);
        for field in [0, 2] {
            self.push(LOAD_HALF_INDEXED, NETWORK + field);
            for port in ports {
                self.jump(JUMP_EQUAL, u32::from(*port), hit, To::Next);
            }
        }
        Ok(())
    }

    fn openings(&mut self, ports: &[u16]) -> Result<(), CaptureError> {
        self.ports(ports, To::Pass)?;
        self.push(LOAD_BYTE_INDEXED, NETWORK + 13);
        self.jump(JUMP_ANY_BIT, SYN, To::Pass, To::Next);
        self.jump(JUMP_ANY_BIT, RST | ACK, To::Next, To::Pass);
        self.jump(JUMP_ANY_BIT, RST, To::Next, To::Drop);
        // A reset has data if the packet is longer than both of its headers.
        self.push(LOAD_BYTE_INDEXED, NETWORK + 12);
        self.push(AND, 0xf0);
        self.push(SHIFT_RIGHT, 2);
        self.push(ADD_INDEX, 0);
        self.push(COPY_TO_INDEX, 0);
        self.push(LOAD_WORD, PROTOCOL);
        self.jump(JUMP_EQUAL, IPV4, To::Next, To::Skip(2));
        self.push(LOAD_HALF, NETWORK + 2);
        self.jump(JUMP_ABOVE_INDEX, 0, To::Pass, To::Drop);
        self.push(LOAD_HALF, NETWORK + 4);
        self.push(ADD, V6_HEADER);
        self.jump(JUMP_ABOVE_INDEX, 0, To::Pass, To::Drop);
        Ok(())
    }

    /// Resolves jumps: the program ends in "pass", then "drop".
    fn finish(self, snap: u32) -> Vec<SockFilter> {
        let pass = self.0.len();
        let distance = |at: usize, to| match to {
            To::Next => 0,
            To::Skip(count) => count,
            To::Pass => u8::try_from(pass - at - 1).unwrap_or(u8::MAX),
            To::Drop => u8::try_from(pass - at).unwrap_or(u8::MAX),
        };
        let compile = |(at, step): (usize, &Step)| {
            SockFilter::new(step.code, distance(at, step.yes), distance(at, step.no), step.k)
        };
        let mut program: Vec<_> = self.0.iter().enumerate().map(compile).collect();
        program.push(SockFilter::new(RETURN, 0, 0, snap));
        program.push(SockFilter::new(RETURN, 0, 0, 0));
        program
    }
}

/// Instructions of the classic packet filter.
const LOAD_WORD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const LOAD_HALF: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS);
const LOAD_BYTE: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
const LOAD_HALF_INDEXED: u16 = code(libc::BPF_LD | libc::BPF_H | libc::BPF_IND);
const LOAD_BYTE_INDEXED: u16 = code(libc::BPF_LD | libc::BPF_B | libc::BPF_IND);
const SET_INDEX: u16 = code(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM);
const COPY_TO_INDEX: u16 = code(libc::BPF_MISC | libc::BPF_TAX);
const AND: u16 = code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
const SHIFT_LEFT: u16 = code(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K);
const SHIFT_RIGHT: u16 = code(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K);
const ADD: u16 = code(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K);
const ADD_INDEX: u16 = code(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X);
const JUMP_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const JUMP_ANY_BIT: u16 = code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
const JUMP_ABOVE: u16 = code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
const JUMP_FROM: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const JUMP_ALWAYS: u16 = code(libc::BPF_JMP | libc::BPF_JA);
const JUMP_ABOVE_INDEX: u16 = code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_X);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

#[expect(clippy::cast_possible_truncation, reason = "instruction codes have 8 bits")]
const fn code(bits: u32) -> u16 {
    bits as u16
}

/// Facts that the kernel keeps beside a frame, and the start of its network header.
const PROTOCOL: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
const HARDWARE_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_HATYPE).cast_unsigned();
const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();

const IPV4: u32 = libc::ETH_P_IP.cast_unsigned();
const IPV6: u32 = libc::ETH_P_IPV6.cast_unsigned();
const ARP: u32 = libc::ETH_P_ARP.cast_unsigned();
const TCP: u32 = libc::IPPROTO_TCP.cast_unsigned();
const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;
const V6_HEADER: u32 = 40;
/// Flags of a segment.
const SYN: u32 = 0x02;
const RST: u32 = 0x04;
const ACK: u32 = 0x10;
/// "More fragments", or an offset.
const FRAGMENT: u32 = 0x3fff;
/// Both ways of the jump are the same.
const ANY: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_the_most_ports_and_refuses_one_more() {
        let ports: Vec<u16> = (1..=64).collect();
        assert_eq!(ports.len(), MAX_FILTER_PORTS);
        for filter in [Filter::NoTcpOf, Filter::NoTcpBut, Filter::Openings] {
            let program = filter(ports.clone()).compile(1).unwrap();
            assert!(program.len() < 255, "every jump reaches the end: {}", program.len());
            let more = [ports.clone(), vec![65]].concat();
            assert_eq!(filter(more).compile(1).unwrap_err().reason(), "setting");
        }
    }
}
