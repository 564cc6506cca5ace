use outrider_telemetry::Registry;
use outrider_wire::{
    Connection, KeepAlive, Reply, ThreatLog,
    ext::{Batch, Evidence, Instance},
};
use proptest::prelude::*;

use super::*;

const MAC: MacAddr = MacAddr([0x0a, 0, 0, 0, 0, 1]);

fn assembler() -> Assembler {
    let counts = Counts::register(&Registry::default()).unwrap();
    Assembler::new(MAC, Lines::default().account(), counts)
}

fn rows(macs: &[MacAddr]) -> Vec<u8> {
    let rows = macs
        .iter()
        .map(|mac| Connection { epmac: *mac, ..Connection::default() })
        .collect();
    Notification::from(Connections { rows }).encode().unwrap()
}

fn batch(seq: u64, datagrams: u16) -> Vec<u8> {
    let batch = Batch { instance: Instance(7), seq, datagrams };
    Notification::from(batch).encode().unwrap()
}

fn dropped(assembler: &Assembler, why: &str) -> u64 {
    assembler
        .counts
        .all_dropped()
        .get(why)
        .copied()
        .unwrap_or_default()
}

#[test]
fn a_batch_is_whole_once_its_last_datagram_is_there() {
    let mut assembler = assembler();
    assert!(assembler.take(&batch(1, 2)).is_none());
    assert!(assembler.take(&rows(&[MAC])).is_none());
    let evidence = Notification::from(Evidence::default()).encode().unwrap();
    let Whole { batch: id, notes, .. } = assembler.take(&evidence).unwrap();
    assert_eq!(id, Some(BatchId { instance: 7, seq: 1 }));
    assert_eq!(notes.len(), 2);
    let Whole { batch: id, .. } = assembler.take(&rows(&[MAC])).unwrap();
    assert_eq!(id, None, "what follows belongs to no batch");
}

#[test]
fn an_empty_batch_is_whole_at_once() {
    assert_eq!(assembler().take(&batch(1, 0)).unwrap().notes.len(), 0);
}

#[test]
fn a_batch_that_starts_anew_replaces_the_unfinished_one() {
    let mut assembler = assembler();
    assembler.take(&batch(1, 2));
    assembler.take(&rows(&[MAC]));
    assembler.take(&batch(1, 1));
    assert_eq!(assembler.take(&rows(&[MAC])).unwrap().notes.len(), 1);
    assert_eq!(dropped(&assembler, "incomplete-batch"), 1);
}

#[test]
fn a_batch_has_a_largest_size() {
    let mut assembler = assembler();
    assert!(assembler.take(&batch(1, MAX_BATCH + 1)).is_none());
    assert_eq!(dropped(&assembler, "oversize-batch"), 1);
    for _ in 0..=MAX_BATCH {
        assert!(assembler.take(&rows(&[MAC])).is_none(), "it is passed over");
    }
    assert!(assembler.take(&rows(&[MAC])).unwrap().batch.is_none());
    assert!(assembler.take(&batch(2, MAX_BATCH)).is_none());
    assert_eq!(assembler.open.unwrap().missing, MAX_BATCH);
}

#[test]
fn what_is_about_another_pod_is_refused_and_counted() {
    let mut assembler = assembler();
    let other = MacAddr([0x0a, 0, 0, 0, 0, 2]);
    let Whole { notes, .. } = assembler.take(&rows(&[MAC, other, other])).unwrap();
    let Notification::Connections(list) = &notes[0] else { panic!("{notes:?}") };
    assert_eq!(list.rows.len(), 1);
    let threat = Notification::from(ThreatLog { epmac: other, ..ThreatLog::default() });
    assert!(assembler.take(&threat.encode().unwrap()).is_none());
    assert_eq!(dropped(&assembler, "foreign-mac"), 3);
}

#[test]
fn a_datagram_of_a_batch_that_makes_no_sense_is_passed_over() {
    let mut assembler = assembler();
    assembler.take(&batch(1, 2));
    let mut broken = rows(&[MAC]);
    broken.truncate(20);
    assert!(assembler.take(&broken).is_none());
    let Whole { batch: id, notes, .. } = assembler.take(&rows(&[MAC])).unwrap();
    assert_eq!((id.unwrap().seq, notes.len()), (1, 1));
    assert_eq!(dropped(&assembler, "malformed"), 1);
}

#[test]
fn garbage_replies_and_unknown_kinds_are_counted_apart() {
    let mut assembler = assembler();
    let reply = Reply::from(KeepAlive { seq_num: 1 }).encode().unwrap();
    for (datagram, why) in [
        (reply, "wrong-kind"),
        (vec![99, 0, 0, 4], "unknown-kind"),
        (vec![], "malformed"),
        (vec![7; 8193], "malformed"),
    ] {
        let before = dropped(&assembler, why);
        assert!(assembler.take(&datagram).is_none());
        assert_eq!(dropped(&assembler, why), before + 1, "{why}");
    }
}

#[test]
fn a_batch_name_survives_the_store() {
    let id = BatchId { instance: u64::MAX - 1, seq: 3 };
    assert_eq!(BatchId::from_bytes(&id.to_bytes()), Some(id));
    assert_eq!(BatchId::from_bytes(b"short"), None);
}

#[test]
fn a_batch_without_room_is_refused_whole_and_comes_again() {
    let mut assembler = assembler();
    let whole = rows(&[MAC; 85]);
    let held: Vec<_> = std::iter::repeat_with(|| assembler.take(&whole))
        .map_while(|taken| taken)
        .collect();
    assert_eq!(dropped(&assembler, "mailbox-full"), 1);
    let last: Vec<_> = std::iter::repeat_with(|| assembler.take(&rows(&[MAC])))
        .map_while(|taken| taken)
        .collect();
    for seq in 1..3 {
        // The announcement has no room, or has all that is left.
        assert!(assembler.take(&batch(seq, 3)).is_none());
        for _ in 0..3 {
            assert!(assembler.take(&whole).is_none());
        }
        assert!(assembler.open.is_none());
        assert_eq!(dropped(&assembler, "mailbox-full"), 2 + seq, "once for the batch");
    }
    drop((held, last));
    assembler.take(&batch(1, 1));
    assert!(assembler.take(&whole).unwrap().batch.is_some());
}

/// A datagram of any kind about any pod, sound or spoilt.
fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let other = MacAddr([0x0a, 0, 0, 0, 0, 2]);
    let sound = prop_oneof![
        (0..3_u64, 0..6_u16).prop_map(|(seq, datagrams)| batch(seq, datagrams)),
        any::<u16>().prop_map(|datagrams| batch(1, datagrams)),
        prop::collection::vec(prop::bool::ANY, 0..4).prop_map(move |own| {
            rows(
                &own.iter()
                    .map(|own| if *own { MAC } else { other })
                    .collect::<Vec<_>>(),
            )
        }),
        prop::bool::ANY.prop_map(move |own| {
            let epmac = if own { MAC } else { other };
            Notification::from(ThreatLog { epmac, ..ThreatLog::default() })
                .encode()
                .unwrap()
        }),
        Just(Notification::from(Evidence::default()).encode().unwrap()),
    ];
    let spoilt = (any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        4 => sound.clone(),
        1 => (sound, spoilt).prop_map(|(mut datagram, (at, byte))| {
            let at = at.index(datagram.len());
            datagram[at] = byte;
            datagram
        }),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ]
}

fn is_own(note: &Notification) -> bool {
    match note {
        Notification::Connections(list) => list.rows.iter().all(|row| row.epmac == MAC),
        Notification::ThreatLog(log) => log.epmac == MAC,
        Notification::AppUpdate(update) => update.mac == MAC,
        _ => true,
    }
}

proptest! {
    /// Whatever comes in whatever order: nothing about another pod gets through, and no batch grows
    /// beyond what was announced.
    #[test]
    fn any_sequence_is_contained(datagrams in prop::collection::vec(any_datagram(), 0..120)) {
        let mut assembler = assembler();
        for datagram in &datagrams {
            if let Some(Whole { notes, .. }) = assembler.take(datagram) {
                prop_assert!(notes.len() <= usize::from(MAX_BATCH) && notes.iter().all(is_own));
            }
            let open = assembler.open.as_ref().filter(|open| open.room.is_some());
            let (missing, held) = open.map_or((1, 0), |open| (open.missing, open.notes.len()));
            prop_assert!(missing > 0 && held + usize::from(missing) <= usize::from(MAX_BATCH));
        }
    }
}
