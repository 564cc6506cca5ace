//! From text to tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    End, FilterError, MAX_FILTER_NESTING, MAX_FILTER_TESTS, MAX_FILTER_TEXT, Test, Wanted,
};
use crate::IpProto;

/// Reads a filter; a text without a word wants everything.
pub(super) fn parse(text: &str) -> Result<Option<Wanted>, FilterError> {
    if text.len() > MAX_FILTER_TEXT {
        return Err(wrong("", "is longer than 1024 bytes"));
    }
    let mut parser = Parser { words: words(text), tests: 0, last: Qualifiers::default() };
    if parser.words.is_empty() {
        return Ok(None);
    }
    parser.words.reverse();
    let wanted = parser.alternatives(0)?;
    match parser.next() {
        None => Ok(Some(wanted)),
        Some(word) => Err(wrong(word, "goes on after its end: join tests with `and` or `or`")),
    }
}

fn wrong(near: &str, what: &'static str) -> FilterError {
    // A word may be as long as the text.
    FilterError { near: near.chars().take(MAX_QUOTED).collect(), what }
}

/// Characters of a wrong word that are repeated.
const MAX_QUOTED: usize = 64;

/// Cuts at blanks, and around brackets, `!`, `&&` and `||`.
fn words(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in text.split_ascii_whitespace() {
        let mut rest = part;
        while !rest.is_empty() {
            let length = match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
                Some(mark) => mark.len(),
                None => MARKS
                    .iter()
                    .filter_map(|mark| rest.find(mark))
                    .min()
                    .unwrap_or(rest.len()),
            };
            let (word, after) = rest.split_at(length);
            found.push(word);
            rest = after;
        }
    }
    found
}

const MARKS: [&str; 5] = ["(", ")", "!", "&&", "||"];

struct Parser<'a> {
    /// What is still to be read, the next word last.
    words: Vec<&'a str>,
    tests: usize,
    /// What a bare value means: `port 80 or 443`.
    last: Qualifiers,
}

/// What stands before a value.
#[derive(Clone, Copy, Default)]
struct Qualifiers {
    proto: Option<Proto>,
    end: End,
    kind: Kind,
}

/// What a value is.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum Kind {
    #[default]
    Host,
    Net,
    Port,
    PortRange,
}

/// A protocol that has a word of its own.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Proto {
    Ipv4,
    Ipv6,
    Arp,
    /// In IP of either version, or of the one that it belongs to.
    Of(IpProto),
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.words.pop()
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.last().copied()
    }

    fn value(&mut self, what: &'static str) -> Result<&'a str, FilterError> {
        self.next().ok_or_else(|| wrong("", what))
    }

    fn alternatives(&mut self, depth: usize) -> Result<Wanted, FilterError> {
        let mut left = self.term(depth)?;
        while let Some(word) = self.peek() {
            let join = match word {
                "and" | "&&" => Wanted::And,
                "or" | "||" => Wanted::Or,
                _ => break,
            };
            self.next();
            let right = self.term(depth)?;
            left = join(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn term(&mut self, depth: usize) -> Result<Wanted, FilterError> {
        if depth >= MAX_FILTER_NESTING {
            return Err(wrong("", "is nested deeper than 16"));
        }
        match self.peek() {
            Some("not" | "!") => {
                self.next();
                Ok(Wanted::Not(Box::new(self.term(depth + 1)?)))
            }
            Some("(") => {
                self.next();
                let inner = self.alternatives(depth + 1)?;
                match self.next() {
                    Some(")") => Ok(inner),
                    Some(word) => Err(wrong(word, "should close a bracket")),
                    None => Err(wrong("", "ends inside a bracket")),
                }
            }
            _ => self.test(),
        }
    }

    fn test(&mut self) -> Result<Wanted, FilterError> {
        self.tests += 1;
        if self.tests > MAX_FILTER_TESTS {
            return Err(wrong("", "has more than 32 tests"));
        }
        let proto = self.peek().and_then(named);
        if proto.is_some() {
            self.next();
        } else if self.peek() == Some("proto") {
            self.next();
            return self.number();
        }
        let end = match self.peek() {
            Some("src") => Some(End::Source),
            Some("dst") => Some(End::Destination),
            _ => None,
        };
        if end.is_some() {
            self.next();
        }
        let kind = self.peek().and_then(kind);
        if kind.is_some() {
            self.next();
        }
        if let (Some(proto), None, None) = (proto, end, kind) {
            return Ok(Wanted::Test(alone(proto)));
        }
        let is_bare = proto.is_none() && end.is_none() && kind.is_none();
        if !is_bare {
            let (end, kind) = (end.unwrap_or_default(), kind.unwrap_or_default());
            self.last = Qualifiers { proto, end, kind };
        }
        let value = self.value("ends where a test should stand")?;
        qualified(self.last, value)
    }

    fn number(&mut self) -> Result<Wanted, FilterError> {
        let word = self.value("ends behind `proto`: write a number of 0 to 255")?;
        let proto = match named(word) {
            Some(Proto::Of(proto)) => proto,
            _ => word.parse().map(IpProto).map_err(|_not| {
                wrong(word, "is no protocol: write tcp, udp, icmp, icmp6, sctp or a number")
            })?,
        };
        Ok(Wanted::Test(Test::Proto(proto)))
    }
}

fn named(word: &str) -> Option<Proto> {
    Some(match word {
        "ip" => Proto::Ipv4,
        "ip6" => Proto::Ipv6,
        "arp" => Proto::Arp,
        "tcp" => Proto::Of(IpProto::TCP),
        "udp" => Proto::Of(IpProto::UDP),
        "icmp" => Proto::Of(IpProto::ICMP),
        "icmp6" => Proto::Of(IpProto::ICMPV6),
        "sctp" => Proto::Of(IpProto::SCTP),
        _ => return None,
    })
}

fn kind(word: &str) -> Option<Kind> {
    Some(match word {
        "host" => Kind::Host,
        "net" => Kind::Net,
        "port" => Kind::Port,
        "portrange" => Kind::PortRange,
        _ => return None,
    })
}

fn alone(proto: Proto) -> Test {
    match proto {
        Proto::Ipv4 => Test::Ipv4,
        Proto::Ipv6 => Test::Ipv6,
        Proto::Arp => Test::Arp,
        Proto::Of(proto) => Test::Proto(proto),
    }
}

fn qualified(qualifiers: Qualifiers, value: &str) -> Result<Wanted, FilterError> {
    let Qualifiers { proto, end, kind } = qualifiers;
    match kind {
        Kind::Host | Kind::Net => {
            let (address, bits) = network(value, kind)?;
            let net = Wanted::Test(Test::Net { end, address, bits });
            match proto {
                None => Ok(net),
                Some(Proto::Of(_)) => {
                    Err(wrong(value, "has an address behind a protocol: write `tcp and host …`"))
                }
                Some(family) => {
                    Ok(Wanted::And(Box::new(Wanted::Test(alone(family))), Box::new(net)))
                }
            }
        }
        Kind::Port | Kind::PortRange => {
            let (first, last) = ports(value, kind)?;
            let of = |proto| Wanted::Test(Test::Ports { end, proto, first, last });
            match proto {
                None => Ok(of(None)),
                Some(Proto::Of(proto)) if has_ports(proto) => Ok(of(Some(proto))),
                Some(_) => Err(wrong(
                    value,
                    "is a port of what has none: write `ip and port …`, or tcp, udp or sctp before `port`",
                )),
            }
        }
    }
}

fn has_ports(proto: IpProto) -> bool {
    matches!(proto, IpProto::TCP | IpProto::UDP | IpProto::SCTP)
}

fn network(value: &str, kind: Kind) -> Result<(IpAddr, u8), FilterError> {
    let no_address = "is no address: write one like 10.0.0.7 or fd00::7 (names are not looked up), \
                      or `port` before a port";
    let (address, bits) = match (value.split_once('/'), kind) {
        (Some((address, bits)), Kind::Net) => (address, Some(bits)),
        (Some(_), _) => return Err(wrong(value, "is a network: write `net` before it")),
        (None, _) => (value, None),
    };
    let address: IpAddr = address.parse().map_err(|_not| wrong(value, no_address))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits.map(str::parse) {
        None => most,
        Some(Ok(bits)) if bits <= most => bits,
        Some(_) => return Err(wrong(value, "has a prefix length that its address does not")),
    };
    let masked = masked(address, bits);
    if masked != address {
        return Err(wrong(value, "has bits set behind its prefix length"));
    }
    Ok((masked, bits))
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn ports(value: &str, kind: Kind) -> Result<(u16, u16), FilterError> {
    let range = (kind == Kind::PortRange)
        .then(|| value.split_once('-'))
        .flatten();
    let (first, last) = range.unwrap_or((value, value));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(wrong(value, "is no port: write `port 80` or `portrange 8000-8080`")),
    }
}
