use super::{super::pcapng::MAX_INTERFACES, *};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn pcap(records: &[Vec<u8>]) -> Vec<u8> {
    let header = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    [header, records.concat()].concat()
}

fn record(captured: u32, bytes: &[u8]) -> Vec<u8> {
    [&words(&[7, 5, captured, captured])[..], bytes].concat()
}

fn block(kind: u32, inside: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inside.len()).unwrap() + 12;
    [&words(&[kind, length])[..], inside, &words(&[length])].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]))
}

/// An interface with options.
fn interface(options: &[u8]) -> Vec<u8> {
    block(1, &[&words(&[1, 0])[..], options].concat())
}

fn packet(time: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let (high, low) = (time >> 32, time & 0xffff_ffff);
    let head = [0, high.try_into().unwrap(), low.try_into().unwrap(), length, length];
    block(6, &[&words(&head)[..], bytes].concat())
}

/// All frames with their times, and why there are no more.
fn read(file: &[u8]) -> (Vec<(Duration, Vec<u8>)>, Option<CaptureError>) {
    let mut found = Vec::new();
    let mut capture = match Capture::new(file) {
        Ok(capture) => capture,
        Err(error) => return (found, Some(error)),
    };
    loop {
        match capture.next() {
            Ok(Some(record)) => found.push((record.at, record.bytes.to_vec())),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

fn broken(file: &[u8]) -> &'static str {
    match read(file).1 {
        Some(CaptureError::Broken { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_times_of_every_unit() {
    let tenth = Duration::from_millis(12_100);
    for (options, time) in [
        (&[][..], 12_100_000),
        (&[9, 0, 1, 0, 9, 0, 0, 0], 12_100_000_000),
        (&[9, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0], 121),
        (&[1, 0, 2, 0, b'x', b'y', 0, 0, 14, 0, 8, 0, 2, 0, 0, 0, 0, 0, 0, 0], 10_100_000),
    ] {
        let file = [section(), interface(options), packet(time, b"data")].concat();
        let (found, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found, [(tenth, b"data".to_vec())], "{options:?}");
    }
    let file = [section(), interface(&[9, 0, 1, 0, 0x82, 0, 0, 0]), packet(49, b"data")].concat();
    assert_eq!(read(&file).0[0].0, Duration::from_millis(12_250));
}

#[test]
fn reads_simple_and_old_packets_and_new_sections() {
    let simple = block(3, &[&words(&[3])[..], b"abc\0"].concat());
    let old = block(2, &[&words(&[0, 0, 5, 4, 4])[..], b"data"].concat());
    let part = [section(), interface(&[]), simple, block(77, b"????"), old].concat();
    let (found, error) = read(&[&part[..], &part].concat());
    assert!(error.is_none(), "{error:?}");
    let frames: Vec<_> = found.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(frames, [&b"abc"[..], b"data", b"abc", b"data"]);
}

#[test]
fn every_cut_is_noticed() {
    let old = pcap(&[record(4, b"data"), record(2, b"xy")]);
    let new = [section(), interface(&[]), packet(1, b"data"), packet(2, b"xyzw")].concat();
    for file in [&old[..], &new] {
        let whole = read(file);
        assert!(whole.1.is_none());
        for cut in 0..file.len() {
            let (found, error) = read(&file[..cut]);
            assert!(found.len() <= whole.0.len());
            match error {
                None => assert!(found.len() < 2, "between two records, at {cut}"),
                Some(CaptureError::Cut { at }) => assert!(at < cut as u64),
                Some(CaptureError::NotCapture(_)) => assert!(found.is_empty() && cut < 28),
                Some(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn lengths_have_limits() {
    let most = u32::try_from(MAX_FRAME).unwrap();
    let fits = pcap(&[record(most, &vec![0; MAX_FRAME])]);
    assert_eq!(read(&fits).0.len(), 1);
    assert!(broken(&pcap(&[record(most + 1, b"")])).contains("256 KiB"));
    let frame = packet(1, &vec![0; MAX_FRAME + 4]);
    assert!(broken(&[section(), interface(&[]), frame].concat()).contains("256 KiB"));
    let huge = words(&[6, 0x7fff_fff0]);
    assert!(broken(&[section(), huge].concat()).contains("1 MiB"));
    let many = interface(&[]).repeat(MAX_INTERFACES);
    assert!(read(&[&section()[..], &many].concat()).1.is_none());
    let more = interface(&[]).repeat(MAX_INTERFACES + 1);
    assert!(broken(&[&section()[..], &more].concat()).contains("interfaces"));
}

#[test]
fn blocks_that_make_no_sense_are_refused() {
    let start = [section(), interface(&[])].concat();
    let with = |rest: &[u8]| [&start[..], rest].concat();
    assert!(broken(&with(&words(&[6, 13, 0, 0, 0, 0, 0]))).contains("length"));
    assert!(broken(&with(&words(&[6, 8]))).contains("length"));
    assert!(broken(&with(&words(&[77, 16, 0, 20]))).contains("two lengths"));
    assert!(broken(&with(&block(6, &words(&[1, 0, 0, 0, 0])))).contains("without a packet"));
    assert!(broken(&with(&block(6, &words(&[0, 0, 0, 1, 1])))).contains("longer than its block"));
    assert!(broken(&[section(), block(1, b"")].concat()).contains("not described"));
    assert!(
        broken(&[section(), interface(&[9, 0, 1, 0, 99, 0, 0, 0])].concat())
            .contains("not described")
    );
    assert!(broken(&with(&block(0x0a0d_0d0a, &words(&[5])))).contains("byte order"));
}
