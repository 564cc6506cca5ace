use std::net::Ipv4Addr;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn address(at: u32) -> IpAddr {
    Ipv4Addr::from(0x0b00_0000 + at).into()
}

fn given(at: u32, ttl: u32) -> DnsAddress {
    DnsAddress { address: address(at), ttl }
}

fn never(_: IpAddr) -> bool {
    false
}

#[test]
fn an_address_holds_as_long_as_its_answer_says_within_bounds() {
    let mut book = NameBook::default();
    let host = name("a.example");
    let answer = [given(1, 0), given(2, 300), given(3, u32::MAX)];
    assert_eq!(book.learn(&host, &answer, 1_000), Learned { fresh: 3, dropped: 0 });
    assert_eq!(book.holds_until(&host), Some(1_000 + MAX_LIFE));
    assert_eq!(book.expire(1_000 + MIN_LIFE - 1, &never), 0);
    assert_eq!(book.expire(1_000 + MIN_LIFE, &never), 1);
    assert_eq!(book.expire(1_300, &never), 1);
    assert!(book.addresses(&host).eq([address(3)]));
    assert_eq!(book.expire(1_000 + MAX_LIFE, &never), 1);
    assert_eq!((book.len(), book.names().count(), book.holds_until(&host)), (0, 0, None));
}

#[test]
fn a_later_answer_prolongs_and_never_shortens() {
    let mut book = NameBook::default();
    let host = name("a.example");
    book.learn(&host, &[given(1, 600)], 0);
    assert_eq!(book.learn(&host, &[given(1, 60)], 10), Learned::default());
    assert_eq!(book.holds_until(&host), Some(600));
    book.learn(&host, &[given(1, 600)], 100);
    assert_eq!(book.expire(600, &never), 0);
    assert_eq!((book.expire(700, &never), book.len()), (1, 0));
}

#[test]
fn an_address_in_use_lives_on() {
    let mut book = NameBook::default();
    let host = name("a.example");
    book.learn(&host, &[given(1, 60), given(2, 60)], 0);
    assert_eq!(book.expire(60, &|ip| ip == address(1)), 1);
    assert!(book.addresses(&host).eq([address(1)]));
    assert_eq!(book.expire(119, &never), 0);
    assert_eq!(book.expire(120, &never), 1);
}

#[test]
fn the_latest_name_is_the_label() {
    let mut book = NameBook::default();
    let (first, second) = (name("a.example"), name("b.example"));
    book.learn(&first, &[given(1, 600)], 0);
    assert_eq!(book.take_changed(9), [(address(1), Some(first.clone()))]);
    book.learn(&first, &[given(1, 600)], 1);
    assert_eq!(book.take_changed(9), [], "nothing changed");
    book.learn(&second, &[given(1, 60)], 2);
    assert_eq!(book.label("::ffff:11.0.0.1".parse().unwrap()), Some(&second));
    book.expire(100, &never);
    assert_eq!(book.take_changed(9), [(address(1), None)]);
    assert!(book.addresses(&first).eq([address(1)]), "the older name still stands for it");
}

#[test]
fn a_full_book_forgets_what_would_expire_first() {
    let mut book = NameBook::default();
    for at in 0..u32::try_from(MAX_PAIRS).unwrap() {
        book.learn(&name(&format!("n{at}.example")), &[given(at, 1_000 + at)], 0);
    }
    assert_eq!(book.len(), MAX_PAIRS);
    let late = name("late.example");
    let learned = book.learn(&late, &[given(1_000_000, 50_000)], 0);
    assert_eq!((learned, book.len()), (Learned { fresh: 1, dropped: 1 }, MAX_PAIRS));
    assert_eq!(book.holds_until(&name("n0.example")), None);
    assert_eq!(book.label(address(0)), None);
    let untold = book.take_changed(usize::MAX);
    assert_eq!(untold.len(), MAX_PAIRS + 1);
}

#[test]
fn a_name_has_so_many_addresses() {
    let mut book = NameBook::default();
    let many = |from: u32| -> Vec<_> { (from..from + 600).map(|at| given(at, 600)).collect() };
    let host = name("a.example");
    book.learn(&host, &many(0), 0);
    let learned = book.learn(&host, &many(600), 0);
    assert_eq!(
        learned,
        Learned { fresh: MAX_NAME_ADDRESSES - 600, dropped: 1_200 - MAX_NAME_ADDRESSES }
    );
    assert_eq!(book.addresses(&host).count(), MAX_NAME_ADDRESSES);
}

#[test]
fn changes_that_nobody_takes_are_bounded() {
    let mut book = NameBook::default();
    for at in 0..u32::try_from(MAX_CHANGED + 100).unwrap() {
        book.learn(&name("a.example"), &[given(at, 60)], u64::from(at) * 100);
        book.expire(u64::from(at) * 100 + 60, &never);
    }
    assert_eq!(book.len(), 0);
    assert_eq!(book.take_changed(usize::MAX).len(), MAX_CHANGED);
}
