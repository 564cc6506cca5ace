//! The addresses that an answer gives to the name that was asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DnsHeader, DnsName, DnsQuestion};
use crate::bytes::Reader;

/// Records of one answer that are looked at.
pub const MAX_RECORDS: usize = 512;

/// Aliases that are followed from the name that was asked for.
pub const MAX_CHAIN: usize = 16;

/// Addresses that one answer may give.
pub const MAX_GIVEN: usize = 1_024;

/// An address that an answer gives to the name asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DnsAddress {
    /// The address.
    pub address: IpAddr,
    /// Seconds that it may be used: the least of its record and of the aliases on the way there.
    pub ttl: u32,
}

/// What of a record matters here.
enum Data {
    Alias(DnsName),
    Address(IpAddr),
    Service { target: DnsName, hints: Vec<IpAddr> },
}

struct Record {
    owner: DnsName,
    ttl: u32,
    /// It stands beside the answer: an address of a service's target, and of nobody else.
    extra: bool,
    data: Data,
}

/// The addresses that an answer gives to the name in its question: A and AAAA records, those behind
/// aliases, the hints of SVCB and HTTPS records and the addresses of their targets. The order of the
/// records does not matter. Nothing if the answer is an error or cannot be read.
#[must_use]
pub fn given(message: &[u8]) -> Vec<DnsAddress> {
    read(message).unwrap_or_default()
}

fn read(message: &[u8]) -> Option<Vec<DnsAddress>> {
    let header = DnsHeader::read(message)?;
    let (question, end) = DnsQuestion::read(message)?;
    if !header.is_answer() || header.rcode() != 0 || question.class != INTERNET {
        return None;
    }
    let records = records(message, end, header)?;
    let mut found = Found::default();
    let (name, ttl) = follow(&records, question.name);
    for record in records.iter().filter(|record| record.owner == name) {
        match &record.data {
            Data::Alias(_) => {}
            Data::Address(_) if record.extra => {}
            Data::Address(address) => found.add(*address, ttl.min(record.ttl)),
            Data::Service { target, hints } => {
                let ttl = ttl.min(record.ttl);
                hints.iter().for_each(|hint| found.add(*hint, ttl));
                found.add_all(&records, target, ttl);
            }
        }
    }
    Some(found.0)
}

#[derive(Default)]
struct Found(Vec<DnsAddress>);

impl Found {
    /// An address that is given twice may be used as long as it may be used either way.
    fn add(&mut self, address: IpAddr, ttl: u32) {
        if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
            known.ttl = known.ttl.max(ttl);
        } else if self.0.len() < MAX_GIVEN {
            self.0.push(DnsAddress { address, ttl });
        }
    }

    fn add_all(&mut self, records: &[Record], target: &DnsName, ttl: u32) {
        for record in records.iter().filter(|record| record.owner == *target) {
            if let Data::Address(address) = record.data {
                self.add(address, ttl.min(record.ttl));
            }
        }
    }
}

/// Where the aliases of a name lead, and how long they hold.
fn follow(records: &[Record], mut name: DnsName) -> (DnsName, u32) {
    let mut ttl = u32::MAX;
    for _ in 0..MAX_CHAIN {
        let alias = records.iter().find_map(|record| match &record.data {
            Data::Alias(target) if record.owner == name => Some((target, record.ttl)),
            _ => None,
        });
        let Some((target, holds)) = alias else { break };
        name = target.clone();
        ttl = ttl.min(holds);
    }
    (name, ttl)
}

/// The records behind the question that say something about addresses.
fn records(message: &[u8], question_end: usize, header: DnsHeader) -> Option<Vec<Record>> {
    let count = [header.answers, header.authorities, header.extras]
        .into_iter()
        .map(usize::from)
        .fold(0, usize::saturating_add)
        .min(MAX_RECORDS);
    let answers = usize::from(header.answers);
    let authorities = answers.saturating_add(header.authorities.into());
    let mut records = Vec::new();
    let mut at = question_end;
    for index in 0..count {
        // What could be read before a cut still holds.
        let Some((record, end)) = record(message, at) else { break };
        at = end;
        let Some(record) = record else { continue };
        let extra = index >= authorities && matches!(record.data, Data::Address(_));
        if index < answers || extra {
            records.push(Record { extra, ..record });
        }
    }
    Some(records)
}

/// One record, if it says something about addresses, and the place behind it.
fn record(message: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (owner, behind) = DnsName::read(message, at)?;
    let mut reader = Reader::new(message.get(behind..)?);
    let (kind, class, ttl) = (reader.be16()?, reader.be16()?, reader.be32()?);
    let data = reader.block16()?.rest();
    let end = message.len().checked_sub(reader.rest().len())?;
    let start = end.checked_sub(data.len())?;
    if class != INTERNET {
        return Some((None, end));
    }
    let data = match kind {
        A => <[u8; 4]>::try_from(data)
            .ok()
            .map(|v4| Data::Address(Ipv4Addr::from(v4).into())),
        AAAA => <[u8; 16]>::try_from(data)
            .ok()
            .map(|v6| Data::Address(Ipv6Addr::from(v6).into())),
        CNAME => DnsName::read(message.get(..end)?, start).map(|(target, _)| Data::Alias(target)),
        SVCB | HTTPS => service(&owner, data),
        _ => None,
    };
    // A time with its highest bit set is no time at all (RFC 2181, section 8).
    let ttl = if ttl > MAX_TTL { 0 } else { ttl };
    Some((data.map(|data| Record { owner, ttl, extra: false, data }), end))
}

/// SVCB and HTTPS (RFC 9460). Their names are never compressed.
fn service(owner: &DnsName, data: &[u8]) -> Option<Data> {
    let mut reader = Reader::new(data);
    let _priority = reader.be16()?;
    let (target, end) = DnsName::read(reader.rest(), 0)?;
    let target = if target.is_root() { owner.clone() } else { target };
    let mut parameters = Reader::new(reader.rest().get(end..)?);
    let mut hints = Vec::new();
    while !parameters.is_empty() {
        let (key, value) = (parameters.be16()?, parameters.block16()?.rest());
        match key {
            IPV4_HINT => hints.extend(
                value
                    .as_chunks()
                    .0
                    .iter()
                    .map(|v4: &[u8; 4]| IpAddr::from(*v4)),
            ),
            IPV6_HINT => hints.extend(
                value
                    .as_chunks()
                    .0
                    .iter()
                    .map(|v6: &[u8; 16]| IpAddr::from(*v6)),
            ),
            _ => {}
        }
    }
    Some(Data::Service { target, hints })
}

const INTERNET: u16 = 1;
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;
const MAX_TTL: u32 = 0x7fff_ffff;
