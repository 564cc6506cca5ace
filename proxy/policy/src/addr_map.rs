//! Subnets to values: the first subnet that holds an address wins.

use std::{cmp::Reverse, collections::BinaryHeap, net::IpAddr};

use ipnet::IpNet;

/// An address as a number of its family; whoever compares two keeps the families apart.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The highest number of an address's family.
pub(crate) fn highest(is_v4: bool) -> u128 {
    if is_v4 { u128::from(u32::MAX) } else { u128::MAX }
}

/// A map from subnets to values, searched in logarithmic time.
#[derive(Debug)]
pub(crate) struct AddrMap<V> {
    v4: Vec<Piece<V>>,
    v6: Vec<Piece<V>>,
}

/// Disjoint from all others, both ends included.
#[derive(Debug)]
struct Piece<V> {
    low: u128,
    high: u128,
    value: V,
}

impl<V: Copy + PartialEq> AddrMap<V> {
    pub(crate) fn new(entries: impl IntoIterator<Item = (IpNet, V)>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|(net, value)| (net.network().is_ipv4(), net, value))
            .partition(|(is_v4, ..)| *is_v4);
        Self { v4: disjoint(&v4), v6: disjoint(&v6) }
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<&V> {
        let pieces = self.family(address);
        let point = number(address);
        let after = pieces.partition_point(|piece| piece.low <= point);
        let piece = pieces.get(after.checked_sub(1)?)?;
        (point <= piece.high).then_some(&piece.value)
    }

    /// Whether there is no subnet of that address's family.
    pub(crate) fn is_empty_for(&self, address: IpAddr) -> bool {
        self.family(address).is_empty()
    }

    fn family(&self, address: IpAddr) -> &[Piece<V>] {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

/// Cuts overlapping subnets into pieces, each with the value of the first subnet that holds it.
fn disjoint<V: Copy + PartialEq>(entries: &[(bool, IpNet, V)]) -> Vec<Piece<V>> {
    let bounds = |index: usize| {
        let (_, net, _) = &entries[index];
        (number(net.network()), number(net.broadcast()))
    };
    let mut by_start: Vec<usize> = (0..entries.len()).collect();
    by_start.sort_by_key(|index| bounds(*index).0);
    let mut cuts: Vec<u128> = (0..entries.len())
        .map(bounds)
        .flat_map(|(low, high)| [Some(low), high.checked_add(1)])
        .flatten()
        .collect();
    cuts.sort_unstable();
    cuts.dedup();

    let mut waiting = by_start.into_iter().peekable();
    let mut open: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
    let mut pieces: Vec<Piece<V>> = Vec::new();
    for (at, low) in cuts.iter().enumerate() {
        while let Some(index) = waiting.next_if(|index| bounds(*index).0 <= *low) {
            open.push(Reverse(index));
        }
        while open
            .peek()
            .is_some_and(|Reverse(first)| bounds(*first).1 < *low)
        {
            open.pop();
        }
        let Some(Reverse(first)) = open.peek() else { continue };
        let high = cuts
            .get(at + 1)
            .map_or(u128::MAX, |next| next - 1)
            .min(bounds(*first).1);
        append(&mut pieces, Piece { low: *low, high, value: entries[*first].2 });
    }
    pieces
}

/// Adds a piece, joined to the last one if they touch and agree.
fn append<V: PartialEq>(pieces: &mut Vec<Piece<V>>, piece: Piece<V>) {
    match pieces.last_mut() {
        Some(last) if last.value == piece.value && last.high.checked_add(1) == Some(piece.low) => {
            last.high = piece.high;
        }
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u16>(), 16u8..=32).prop_map(|(bits, prefix)| {
                IpNet::new(IpAddr::from((0x0a00_0000 | u32::from(bits)).to_be_bytes()), prefix)
                    .unwrap()
            }),
            (any::<u16>(), 112u8..=128).prop_map(|(bits, prefix)| {
                IpNet::new(IpAddr::from(u128::from(bits).to_be_bytes()), prefix).unwrap()
            }),
            Just("::/0".parse().unwrap()),
            Just("0.0.0.0/0".parse().unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn the_first_subnet_that_holds_an_address_wins(
            nets in prop::collection::vec(net(), 0..12),
            probes in prop::collection::vec(any::<u16>(), 1..20),
        ) {
            let map = AddrMap::new(nets.iter().copied().zip(0..));
            for probe in probes {
                let v4 = IpAddr::from((0x0a00_0000 | u32::from(probe)).to_be_bytes());
                let v6 = IpAddr::from(u128::from(probe).to_be_bytes());
                for address in [v4, v6] {
                    let first = nets.iter().position(|net| net.contains(&address));
                    prop_assert_eq!(map.get(address).copied(), first);
                }
            }
        }
    }
}
