use proptest::prelude::*;

use super::*;

fn bytes(block: &Block<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    block.write(&mut out);
    out
}

fn ethernet(name: &str) -> Block<'_> {
    Block::Interface { link: Link::Ethernet, snap: 65_535, name }
}

fn packet(interface: u32, bytes: &[u8]) -> Block<'_> {
    Block::Packet(Packet {
        interface,
        at: 1_795_442_288_123_456_789,
        outbound: true,
        wire: 1500,
        bytes,
    })
}

const TOTALS: Block<'static> = Block::Totals(Totals { at: 5, seen: 3, lost: 1 });

fn file() -> Vec<Vec<u8>> {
    let blocks = [
        Block::Section,
        ethernet("eth0"),
        packet(0, b"12345"),
        Block::Interface { link: Link::Raw, snap: 96, name: "tun0" },
        packet(1, b""),
        TOTALS,
    ];
    blocks.iter().map(bytes).collect()
}

fn check(blocks: &[Vec<u8>]) -> Result<(Vec<u8>, Checker), WireError> {
    let (mut checker, mut out) = (Checker::default(), Vec::new());
    for block in blocks {
        checker.feed(block, &mut out)?;
    }
    Ok((out, checker))
}

#[test]
fn blocks_are_what_the_format_says() {
    let section = bytes(&Block::Section);
    let words = [0x0a0d_0d0a_u32, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28];
    assert_eq!(section, words.map(u32::to_le_bytes).concat());
    let interface = bytes(&ethernet("eth0"));
    let words = [1_u32, 40, 1, 65_535, 0x0004_0002, 0x3068_7465, 0x0001_0009, 9, 0, 40];
    assert_eq!(interface, words.map(u32::to_le_bytes).concat());
}

#[test]
fn what_is_written_is_read() {
    let long = [7; MAX_PACKET_BYTES];
    for block in [Block::Section, ethernet(""), packet(0, b"1"), packet(9, &long), TOTALS] {
        let bytes = bytes(&block);
        assert!(bytes.len() <= MAX_BLOCK);
        assert_eq!(Block::read(&bytes), Ok(block));
    }
    assert_eq!(bytes(&packet(0, b"12345")).len(), Block::packet_size(5));
}

#[test]
fn every_truncation_and_what_follows_is_refused() {
    for block in file() {
        for cut in 0..block.len() {
            assert!(Block::read(&block[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Block::read(&[&block[..], &[0; 4]].concat()).is_err());
    }
}

#[test]
fn a_file_goes_through_whole_and_is_counted() {
    let blocks = file();
    let (out, checker) = check(&blocks).unwrap();
    assert_eq!(out, blocks.concat());
    assert_eq!(checker.packets(), 2);
    assert_eq!(checker.totals(), Some(Totals { at: 5, seen: 3, lost: 1 }));
}

#[test]
fn blocks_out_of_order_are_refused() {
    let all = file();
    let pick =
        |picked: &[usize]| check(&picked.iter().map(|at| all[*at].clone()).collect::<Vec<_>>());
    for wrong in [&[1][..], &[0, 0], &[0, 2], &[0, 5], &[0, 1, 4], &[0, 1, 5, 2], &[0, 1, 5, 5]] {
        assert!(pick(wrong).is_err(), "{wrong:?}");
    }
    assert!(pick(&[0, 1, 3, 4, 2, 2, 5]).is_ok());
}

#[test]
fn lengths_interfaces_and_names_are_capped() {
    for length in [0_u32, 8, 13, u32::try_from(MAX_BLOCK).unwrap() + 4, u32::MAX] {
        let header = [6_u32.to_le_bytes(), length.to_le_bytes()].concat();
        assert_eq!(check(&[header]).unwrap_err(), WireError::BadValue("length"), "{length}");
    }
    let many = |count: u32| {
        let interfaces = (0..count).map(|_| bytes(&ethernet("eth0")));
        check(
            &std::iter::once(bytes(&Block::Section))
                .chain(interfaces)
                .collect::<Vec<_>>(),
        )
    };
    assert!(many(MAX_INTERFACES).is_ok());
    assert!(many(MAX_INTERFACES + 1).is_err());
    assert_eq!(bytes(&ethernet("a-name-that-is-too-long")), bytes(&ethernet("a-name-that-is-")));
    for name in ["e h", "e\u{1b}h", "é"] {
        assert!(Block::read(&bytes(&ethernet(name))).is_err(), "{name:?}");
    }
    let mut long = bytes(&packet(0, &[0; 8]));
    long.splice(20..24, 0x0002_0000_u32.to_le_bytes());
    assert!(matches!(Block::read(&long), Err(WireError::TooMany { .. })));
}

proptest! {
    #[test]
    fn cut_points_change_nothing(cuts in proptest::collection::vec(0_usize..400, 0..9)) {
        let whole = file().concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
        cuts.sort_unstable();
        cuts.push(whole.len());
        let (mut parts, mut from) = (Vec::new(), 0);
        for cut in cuts {
            parts.push(whole[from..cut].to_vec());
            from = cut;
        }
        prop_assert_eq!(check(&parts).unwrap().0, whole);
    }
}
