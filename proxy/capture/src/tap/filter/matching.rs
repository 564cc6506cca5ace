//! A filter that somebody wrote, as a program for the kernel. Which end of a jump is near and which
//! far depends on what was written, so every jump may be far: a test jumps over one of two long jumps.

use std::net::{IpAddr, Ipv6Addr};

use outrider_model::{
    IpProto, PacketFilter,
    filter::{End, Test, Wanted},
};
use socket2::SockFilter;

use super::{
    AND, ARP, COPY_TO_INDEX, HARDWARE_TYPE, IPV4, IPV6, JUMP_ABOVE, JUMP_ALWAYS, JUMP_ANY_BIT,
    JUMP_EQUAL, JUMP_FROM, LOAD_BYTE, LOAD_HALF, LOAD_HALF_INDEXED, LOAD_WORD, NETWORK, OUTGOING,
    PACKET_TYPE, PROTOCOL, RETURN, SET_INDEX, SHIFT_LEFT, V6_HEADER,
};

/// The program: `snap` bytes of what the filter wants, nothing of the rest.
pub(super) fn compile(packets: &PacketFilter, loopback: bool, snap: u32) -> Vec<SockFilter> {
    let mut program = Assembly::default();
    let [pass, drop] = [program.label(), program.label()];
    let [local, body] = [program.label(), program.label()];
    program.push(LOAD_WORD, HARDWARE_TYPE);
    program.jump(JUMP_EQUAL, u32::from(libc::ARPHRD_LOOPBACK), local, body);
    program.here(local);
    if loopback {
        // What leaves by loopback comes in again: once is enough.
        program.push(LOAD_WORD, PACKET_TYPE);
        program.jump(JUMP_EQUAL, OUTGOING, drop, body);
    } else {
        program.go(drop);
    }
    program.here(body);
    match packets.wanted() {
        Some(wanted) => program.wanted(wanted, pass, drop),
        None => program.go(pass),
    }
    program.here(pass);
    program.push(RETURN, snap);
    program.here(drop);
    program.push(RETURN, 0);
    program.finish()
}

/// A place in the program that jumps lead to.
type Label = usize;

#[derive(Debug)]
enum Step {
    Plain(u16, u32),
    Jump { code: u16, k: u32, yes: Label, no: Label },
    Go(Label),
}

impl Step {
    /// Instructions that become of it.
    fn length(&self) -> usize {
        match self {
            Self::Plain(..) | Self::Go(_) => 1,
            Self::Jump { .. } => 3,
        }
    }
}

#[derive(Debug, Default)]
struct Assembly {
    steps: Vec<Step>,
    /// Before which step each label stands.
    labels: Vec<usize>,
}

impl Assembly {
    fn push(&mut self, code: u16, k: u32) {
        self.steps.push(Step::Plain(code, k));
    }

    fn jump(&mut self, code: u16, k: u32, yes: Label, no: Label) {
        self.steps.push(Step::Jump { code, k, yes, no });
    }

    fn go(&mut self, to: Label) {
        self.steps.push(Step::Go(to));
    }

    fn label(&mut self) -> Label {
        self.labels.push(0);
        self.labels.len() - 1
    }

    fn here(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label) {
            *place = self.steps.len();
        }
    }

    fn wanted(&mut self, wanted: &Wanted, yes: Label, no: Label) {
        match wanted {
            Wanted::And(one, other) => {
                let between = self.label();
                self.wanted(one, between, no);
                self.here(between);
                self.wanted(other, yes, no);
            }
            Wanted::Or(one, other) => {
                let between = self.label();
                self.wanted(one, yes, between);
                self.here(between);
                self.wanted(other, yes, no);
            }
            Wanted::Not(inner) => self.wanted(inner, no, yes),
            Wanted::Test(test) => self.test(*test, yes, no),
        }
    }

    fn test(&mut self, test: Test, yes: Label, no: Label) {
        match test {
            Test::Ipv4 => self.family(IPV4, yes, no),
            Test::Ipv6 => self.family(IPV6, yes, no),
            Test::Arp => self.family(ARP, yes, no),
            Test::Proto(proto) => self.proto(proto, yes, no),
            Test::Net { end, address: IpAddr::V4(v4), bits } => {
                let net = [(v4.to_bits(), mask(bits.into()))];
                let other = self.label();
                self.net((IPV4, [12, 16]), end, &net, (yes, no, other));
                self.here(other);
                let neither = self.label();
                self.net((ARP, [14, 24]), end, &net, (yes, no, neither));
                self.here(neither);
                self.go(no);
            }
            Test::Net { end, address: IpAddr::V6(v6), bits } => {
                let net = words(v6, bits.into());
                self.net((IPV6, [8, 24]), end, &net, (yes, no, no));
            }
            Test::Ports { end, proto, first, last } => {
                self.ports(end, proto, (first, last), (yes, no));
            }
        }
    }

    fn family(&mut self, family: u32, yes: Label, no: Label) {
        self.push(LOAD_WORD, PROTOCOL);
        self.jump(JUMP_EQUAL, family, yes, no);
    }

    /// The protocol of IP's own header, or behind one of a fragment; of ICMP's two, only that of the
    /// version it belongs to.
    fn proto(&mut self, proto: IpProto, yes: Label, no: Label) {
        for (family, at, foreign) in [(IPV4, 9, IpProto::ICMPV6), (IPV6, 6, IpProto::ICMP)] {
            if proto == foreign {
                continue;
            }
            let [inside, other] = [self.label(), self.label()];
            self.family(family, inside, other);
            self.here(inside);
            self.push(LOAD_BYTE, NETWORK + at);
            let miss = self.label();
            self.jump(JUMP_EQUAL, proto.0.into(), yes, miss);
            self.here(miss);
            if family == IPV6 {
                let fragment = self.label();
                self.jump(JUMP_EQUAL, FRAGMENT_HEADER, fragment, no);
                self.here(fragment);
                self.push(LOAD_BYTE, NETWORK + V6_HEADER);
                self.jump(JUMP_EQUAL, proto.0.into(), yes, no);
            }
            self.go(no);
            self.here(other);
        }
        self.go(no);
    }

    /// Whether an address of the family, at one of two places, begins with these words under their
    /// masks. A packet of another family goes to the third label.
    fn net(
        &mut self,
        (family, places): (u32, [u32; 2]),
        end: End,
        net: &[(u32, u32)],
        (yes, no, other): (Label, Label, Label),
    ) {
        let inside = self.label();
        self.family(family, inside, other);
        self.here(inside);
        let asked = places.into_iter().zip(end.sides());
        for (place, _) in asked.filter(|(_, asked)| *asked) {
            let miss = self.label();
            for (at, (word, mask)) in (place..).step_by(4).zip(net) {
                let hit = self.label();
                self.push(LOAD_WORD, NETWORK + at);
                self.push(AND, *mask);
                self.jump(JUMP_EQUAL, *word, hit, miss);
                self.here(hit);
            }
            self.go(yes);
            self.here(miss);
        }
        self.go(no);
    }

    fn ports(
        &mut self,
        end: End,
        proto: Option<IpProto>,
        (first, last): (u16, u16),
        (yes, no): (Label, Label),
    ) {
        let [v4, other, v6, found] = std::array::from_fn(|_| self.label());
        self.family(IPV4, v4, other);
        self.here(v4);
        self.push(LOAD_BYTE, NETWORK + 9);
        self.with_ports(proto, no);
        let whole = self.label();
        self.push(LOAD_HALF, NETWORK + 6);
        self.jump(JUMP_ANY_BIT, LATER_FRAGMENT, no, whole);
        self.here(whole);
        self.push(LOAD_BYTE, NETWORK);
        self.push(AND, 0x0f);
        self.push(SHIFT_LEFT, 2);
        self.push(COPY_TO_INDEX, 0);
        self.go(found);
        self.here(other);
        self.family(IPV6, v6, no);
        self.here(v6);
        self.push(LOAD_BYTE, NETWORK + 6);
        self.with_ports(proto, no);
        self.push(SET_INDEX, V6_HEADER);
        self.here(found);
        let asked = [0, 2].into_iter().zip(end.sides());
        for (field, _) in asked.filter(|(_, asked)| *asked) {
            let [high, miss] = [self.label(), self.label()];
            self.push(LOAD_HALF_INDEXED, NETWORK + field);
            self.jump(JUMP_FROM, first.into(), high, miss);
            self.here(high);
            self.jump(JUMP_ABOVE, last.into(), miss, yes);
            self.here(miss);
        }
        self.go(no);
    }

    /// Goes on only if the protocol that was loaded is the one, or any, that has ports.
    fn with_ports(&mut self, proto: Option<IpProto>, no: Label) {
        let on = self.label();
        let any = [IpProto::TCP, IpProto::UDP, IpProto::SCTP];
        for proto in any
            .into_iter()
            .filter(|one| proto.is_none_or(|only| only == *one))
        {
            let next = self.label();
            self.jump(JUMP_EQUAL, proto.0.into(), on, next);
            self.here(next);
        }
        self.go(no);
        self.here(on);
    }

    /// Resolves labels.
    fn finish(self) -> Vec<SockFilter> {
        let mut starts = Vec::with_capacity(self.steps.len() + 1);
        let mut at = 0_usize;
        for step in &self.steps {
            starts.push(at);
            at += step.length();
        }
        starts.push(at);
        let place = |label: Label| {
            let step = self.labels.get(label).copied().unwrap_or_default();
            starts.get(step).copied().unwrap_or_default()
        };
        // All labels lie ahead of the jumps to them.
        let far = |from: usize, to: Label| {
            let distance = place(to).saturating_sub(from + 1);
            SockFilter::new(JUMP_ALWAYS, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX))
        };
        let mut program = Vec::with_capacity(at);
        for (step, at) in self.steps.iter().zip(&starts) {
            match step {
                Step::Plain(code, k) => program.push(SockFilter::new(*code, 0, 0, *k)),
                Step::Go(to) => program.push(far(*at, *to)),
                Step::Jump { code, k, yes, no } => {
                    program.push(SockFilter::new(*code, 0, 1, *k));
                    program.extend([far(at + 1, *yes), far(at + 2, *no)]);
                }
            }
        }
        program
    }
}

/// The words of an address that count, with their masks.
fn words(address: Ipv6Addr, bits: u32) -> Vec<(u32, u32)> {
    let octets = address.octets();
    let (words, _) = octets.as_chunks::<4>();
    (0..bits.div_ceil(32))
        .zip(words)
        .map(|(at, word)| (u32::from_be_bytes(*word), mask((bits - 32 * at).min(32))))
        .collect()
}

fn mask(bits: u32) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(bits))
        .unwrap_or(0)
}

/// What IPv6 calls the header of a fragment.
const FRAGMENT_HEADER: u32 = libc::IPPROTO_FRAGMENT.cast_unsigned();
/// An offset: this part of the packet does not begin with ports.
const LATER_FRAGMENT: u32 = 0x1fff;

#[cfg(test)]
mod tests {
    use outrider_model::filter::MAX_FILTER_TESTS;

    use super::*;

    /// The kernel takes no longer program.
    const MOST: usize = 4096;

    #[test]
    fn the_longest_filter_is_a_program_that_the_kernel_takes() {
        for test in ["host fd00:1:2:3:4:5:6:7", "portrange 1-2", "host 10.0.0.7", "tcp"] {
            let text = vec![test; MAX_FILTER_TESTS].join(" or ");
            let filter = text.parse().unwrap_or_else(|_too_long| {
                let short = text.get(..1000).unwrap().rsplit_once(" or ").unwrap().0;
                short.parse().unwrap()
            });
            assert!(compile(&filter, true, 1).len() < MOST, "{test}");
        }
    }
}
