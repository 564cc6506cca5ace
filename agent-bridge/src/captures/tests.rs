use std::{io::Write as _, net::IpAddr, os::fd::OwnedFd};

use outrider_model::MacAddr;
use outrider_wire::pcapng::{Block, Link, Packet, Totals};

use super::*;

fn workload(name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        uid: name.to_owned(),
        name: format!("default/{name}"),
        namespace: "default".to_owned(),
        service: name.to_owned(),
        addresses: Vec::<IpAddr>::new(),
        mac: MacAddr::default(),
        labels: BTreeMap::new(),
    })
}

fn wish() -> Wish {
    Wish {
        filter: PacketFilter::everything(),
        loopback: false,
        snap: MAX_SNAP,
        packets: 0,
        bytes: MIN_BYTES,
        seconds: 1,
    }
}

fn captures() -> (tempfile::TempDir, Captures) {
    let dir = tempfile::tempdir().unwrap();
    let captures = Captures::new(&dir.path().join("bridge.redb"));
    (dir, captures)
}

/// A capture and the end of its pipe that a proxy has.
fn begin(captures: &Captures, id: u64, wish: Wish, stored: bool) -> (Pump, std::fs::File) {
    let (pipe, theirs) = open_pipe().unwrap();
    let capture = captures
        .enter(Instance(id), workload("a"), wish, stored)
        .unwrap();
    (Pump::new(capture, pipe), OwnedFd::into(theirs))
}

fn file(packets: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Block::Section.write(&mut out);
    Block::Interface { link: Link::Ethernet, snap: MAX_SNAP, name: "eth0" }.write(&mut out);
    for _ in 0..packets {
        let packet = Packet { interface: 0, at: 1, outbound: true, wire: 60, bytes: &[7; 60] };
        Block::Packet(packet).write(&mut out);
    }
    out
}

fn end() -> Vec<u8> {
    let mut out = Vec::new();
    Block::Totals(Totals { at: 2, seen: 5, lost: 2 }).write(&mut out);
    out
}

async fn rest(pump: &mut Pump) -> (Vec<u8>, Option<String>) {
    let mut all = Vec::new();
    loop {
        match pump.next().await {
            Some(Ok(bytes)) => all.extend(bytes),
            Some(Err(why)) => return (all, Some(why)),
            None => return (all, None),
        }
    }
}

#[tokio::test]
async fn a_whole_capture_goes_through_and_is_counted() {
    let (_dir, captures) = captures();
    let (mut pump, mut theirs) = begin(&captures, 1, wish(), false);
    let whole = [file(3), end()].concat();
    theirs.write_all(&whole).unwrap();
    drop(theirs);
    assert_eq!(rest(&mut pump).await, (whole.clone(), None));
    let progress = pump.capture().progress();
    assert_eq!(progress.state, State::Ended);
    assert_eq!((progress.packets, progress.lost), (3, 2));
    assert_eq!(progress.bytes, whole.len() as u64);
}

#[tokio::test]
async fn what_is_no_capture_or_too_long_ends_it() {
    let (_dir, captures) = captures();
    let one_packet = Wish { packets: 1, ..wish() };
    for (number, sent, wish, why) in [
        (1, b"GET / HTTP/1.1\r\n\r\n".to_vec(), wish(), "is no capture"),
        (2, file(100), wish(), "more than it was asked for"),
        (3, file(2), one_packet, "more than it was asked for"),
        (4, file(1), wish(), "gone, or broke off"),
        (5, Vec::new(), wish(), "gone, or broke off"),
        (6, [file(1), end(), file(1)].concat(), wish(), "is no capture"),
    ] {
        let (mut pump, mut theirs) = begin(&captures, number, wish, false);
        theirs.write_all(&sent).unwrap();
        drop(theirs);
        let (_, said) = rest(&mut pump).await;
        assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{number}: {said:?}");
        assert!(matches!(pump.capture().progress().state, State::Failed(_)));
        assert_eq!(pump.next().await, None, "nothing comes behind an error");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_ends_is_given_up() {
    let (_dir, captures) = captures();
    let (mut pump, _theirs) = begin(&captures, 1, wish(), false);
    let (_, said) = rest(&mut pump).await;
    assert!(said.unwrap().contains("in time"));
    let long = Wish { seconds: MAX_SECONDS, ..wish() };
    let (mut pump, _theirs) = begin(&captures, 2, long, false);
    pump.capture().stop.cancel();
    let begun = tokio::time::Instant::now();
    let (_, said) = rest(&mut pump).await;
    assert!(said.unwrap().contains("in time"));
    assert!(begun.elapsed() <= GRACE + Duration::from_secs(1));
}

#[tokio::test]
async fn who_goes_away_ends_it_and_the_proxy_notices() {
    let (_dir, captures) = captures();
    let (pump, mut theirs) = begin(&captures, 1, wish(), false);
    drop(pump);
    let capture = captures.list().remove(0);
    assert!(matches!(capture.progress().state, State::Failed(_)));
    let error = theirs.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn captures_are_bounded_by_pod_by_node_and_by_bytes() {
    let (dir, captures) = captures();
    let enter = |id: u64, name: &str, bytes: u64, stored: bool| {
        captures.enter(Instance(id), workload(name), Wish { bytes, ..wish() }, stored)
    };
    enter(0, "a", 1, false).unwrap();
    enter(1, "a", 1, false).unwrap();
    assert!(
        enter(2, "a", 1, false)
            .unwrap_err()
            .to_string()
            .contains("of this pod")
    );
    for id in 2..16 {
        enter(id, &format!("pod{id}"), 1, false).unwrap();
    }
    assert!(
        enter(16, "z", 1, false)
            .unwrap_err()
            .to_string()
            .starts_with("16 captures")
    );
    captures.close();
    assert!(captures.list().is_empty());
    for id in 0..4 {
        let kept = enter(id, "a", MAX_STORED_CAPTURE, true).unwrap();
        kept.end(State::Ended, 0);
    }
    assert!(
        enter(4, "a", 1, true)
            .unwrap_err()
            .to_string()
            .contains("remove one")
    );
    assert!(enter(4, "a", 1, false).is_ok(), "what is not kept needs no room");
    captures.remove(Instance(0));
    assert!(enter(5, "a", 1, true).is_ok());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(names.is_empty(), "files have no name: {names:?}");
}

#[tokio::test]
async fn of_what_went_through_the_last_records_are_kept() {
    let (_dir, captures) = captures();
    for id in 0..40 {
        let over = captures
            .enter(Instance(id), workload("a"), wish(), false)
            .unwrap();
        over.end(State::Ended, 0);
    }
    assert_eq!(captures.list().len(), MAX_RECORDS);
}

#[tokio::test]
async fn what_is_stored_can_be_read_while_it_grows() {
    let (dir, captures) = captures();
    let (pump, mut theirs) = begin(&captures, 1, wish(), true);
    captures.store(pump);
    let capture = captures.list().remove(0);
    let spool = capture.spool.clone().unwrap();
    let begin = file(2);
    theirs.write_all(&begin).unwrap();
    let grown = async {
        while spool.read(0, 1 << 20).await.unwrap() != begin {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        theirs.write_all(&end()).unwrap();
        drop(theirs);
        while capture.progress().state == State::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), grown)
        .await
        .unwrap();
    assert_eq!(spool.read(begin.len() as u64, 9999).await.unwrap(), end());
    assert!(spool.read(9999, 10).await.unwrap().is_empty());
    drop(dir);
}

#[test]
fn a_wish_is_held_to_its_bounds() {
    assert!(wish().checked().is_ok());
    for wrong in [
        Wish { snap: MIN_SNAP - 1, ..wish() },
        Wish { snap: MAX_SNAP + 1, ..wish() },
        Wish { bytes: MIN_BYTES - 1, ..wish() },
        Wish { bytes: MAX_BYTES + 1, ..wish() },
        Wish { seconds: 0, ..wish() },
        Wish { seconds: MAX_SECONDS + 1, ..wish() },
    ] {
        assert!(matches!(wrong.clone().checked(), Err(Refusal::Bad(_))), "{wrong:?}");
    }
}
