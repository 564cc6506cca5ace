use super::*;

fn announce(_instance: u64, seq: u64, datagrams: u16) -> Datagram {
    format!("batch {seq} of {datagrams}").into_bytes()
}

fn outbox() -> Outbox {
    Outbox::new(7, announce)
}

fn wave(names: &[&str]) -> Vec<Datagram> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Sends up to `limit` datagrams.
fn send(outbox: &mut Outbox, limit: usize) -> Vec<String> {
    let mut sent = Vec::new();
    while sent.len() < limit
        && let Some(front) = outbox.front()
    {
        sent.push(String::from_utf8(front.clone()).unwrap());
        outbox.sent(Instant::now());
    }
    sent
}

#[test]
fn without_acknowledgements_a_wave_goes_out_once() {
    let mut outbox = outbox();
    outbox.put_wave(wave(&["a", "b"]));
    assert!(!outbox.takes_wave());
    assert_eq!(send(&mut outbox, 1), ["a"]);
    outbox.receiver_lost();
    assert_eq!(send(&mut outbox, 9), ["b"], "what was taken is not sent twice");
    assert!(outbox.is_settled());
}

#[test]
fn a_batch_is_announced_and_kept_until_it_is_acknowledged() {
    let mut outbox = outbox();
    outbox.hello(true);
    outbox.put_wave(wave(&["a", "b"]));
    assert_eq!(send(&mut outbox, 9), ["batch 1 of 2", "a", "b"]);
    assert!(!outbox.takes_wave());
    assert!(!outbox.acknowledge(7, 2), "another batch");
    assert!(!outbox.acknowledge(8, 1), "another life");
    assert!(outbox.acknowledge(7, 1));
    assert!(!outbox.acknowledge(7, 1), "already forgotten");
    outbox.put_wave(wave(&["c"]));
    assert_eq!(send(&mut outbox, 9), ["batch 2 of 1", "c"]);
}

#[tokio::test(start_paused = true)]
async fn repeats_a_batch_whose_acknowledgement_is_overdue() {
    let mut outbox = outbox();
    outbox.hello(true);
    outbox.put_wave(wave(&["a"]));
    send(&mut outbox, 9);
    assert!(!outbox.repeat_overdue(Instant::now()));
    tokio::time::advance(ACK_PATIENCE).await;
    assert!(outbox.repeat_overdue(Instant::now()));
    assert_eq!(send(&mut outbox, 9), ["batch 1 of 1", "a"], "same number, same content");
}

#[test]
fn a_new_hello_or_a_lost_receiver_starts_the_batch_again() {
    let mut outbox = outbox();
    outbox.hello(true);
    outbox.put_wave(wave(&["a", "b"]));
    send(&mut outbox, 2);
    outbox.hello(true);
    assert_eq!(send(&mut outbox, 2), ["batch 1 of 2", "a"]);
    outbox.receiver_lost();
    assert_eq!(send(&mut outbox, 9), ["batch 1 of 2", "a", "b"]);
}

#[test]
fn a_hello_makes_a_batch_of_a_wave_that_nobody_has_seen() {
    let mut outbox = outbox();
    outbox.put_wave(wave(&["a"]));
    outbox.hello(true);
    assert_eq!(send(&mut outbox, 9), ["batch 1 of 1", "a"]);
}

#[test]
fn a_wave_that_was_begun_without_acknowledgements_ends_so() {
    let mut outbox = outbox();
    outbox.put_wave(wave(&["a", "b"]));
    send(&mut outbox, 1);
    outbox.hello(true);
    assert_eq!(send(&mut outbox, 9), ["b"]);
    assert!(outbox.takes_wave());
}

#[test]
fn an_agent_without_acknowledgements_gets_the_batch_that_was_not_safe() {
    let mut outbox = outbox();
    outbox.hello(true);
    outbox.put_wave(wave(&["a", "b"]));
    send(&mut outbox, 9);
    outbox.hello(false);
    assert_eq!(send(&mut outbox, 9), ["a", "b"]);
    assert!(outbox.is_settled());
}

#[test]
fn notices_never_stand_inside_a_batch() {
    let mut outbox = outbox();
    outbox.hello(true);
    outbox.put_wave(wave(&["a", "b"]));
    send(&mut outbox, 1);
    assert!(outbox.put_notice(b"apps".to_vec()));
    assert_eq!(send(&mut outbox, 9), ["a", "b", "apps"]);
    assert!(!outbox.is_settled(), "the batch still waits for its acknowledgement");
}

#[test]
fn the_oldest_notice_makes_room_for_the_newest() {
    let mut outbox = outbox();
    for n in 0..MAX_NOTICES {
        assert!(outbox.put_notice(n.to_string().into_bytes()));
    }
    assert!(!outbox.put_notice(b"last".to_vec()));
    let sent = send(&mut outbox, usize::MAX);
    assert_eq!(sent.len(), MAX_NOTICES);
    assert_eq!((sent[0].as_str(), sent[MAX_NOTICES - 1].as_str()), ("1", "last"));
}
