use super::*;
use crate::dns::testing::{answer, asker, question, server};

const ASKED: u16 = 0x1234;

fn asked() -> Asked {
    Asked::read(&question(ASKED, "www.example")).unwrap()
}

/// The expected answer, under the id of who asked.
fn expected(rcode: u8, last: u8) -> Vec<u8> {
    answer(&question(ASKED, "www.example"), rcode, [11, 0, 0, last])
}

fn says(rcode: u8, last: u8) -> impl Fn(&[u8]) -> Vec<Vec<u8>> + Send {
    move |question: &[u8]| vec![answer(question, rcode, [11, 0, 0, last])]
}

fn silent(_: &[u8]) -> Vec<Vec<u8>> {
    Vec::new()
}

#[tokio::test]
async fn the_answer_passes_as_it_came_under_the_askers_id() {
    let asker = asker(&[server(says(0, 1)).await], "");
    for _ in 0..20 {
        assert_eq!(exchange(&asker, &asked()).await, (Some(expected(0, 1)), Outcome::Answered));
    }
    let denied = super::super::testing::asker(&[server(says(3, 1)).await], "");
    assert_eq!(exchange(&denied, &asked()).await, (Some(expected(3, 1)), Outcome::Answered));
}

#[tokio::test]
async fn ids_and_ports_upstream_are_drawn() {
    let (sender, mut seen) = tokio::sync::mpsc::channel(64);
    let recording = server(move |question| {
        sender.try_send([question[0], question[1]]).unwrap();
        vec![answer(question, 0, [11, 0, 0, 1])]
    });
    let asker = asker(&[recording.await], "");
    for _ in 0..16 {
        assert!(exchange(&asker, &asked()).await.0.is_some());
    }
    let mut ids = Vec::new();
    while let Ok(id) = seen.try_recv() {
        ids.push(id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 12, "{ids:?}");
}

#[tokio::test]
async fn what_belongs_to_no_question_is_counted_and_not_taken() {
    let forging = server(|question| {
        let good = answer(question, 0, [11, 0, 0, 1]);
        let (mut other_id, mut other_name, mut is_question) =
            (good.clone(), good.clone(), good.clone());
        other_id[1] ^= 1;
        other_name[13] ^= 1;
        is_question[2] &= 0x7f;
        vec![other_id, other_name, is_question, vec![0; 3], good]
    });
    let asker = asker(&[forging.await], "");
    assert_eq!(exchange(&asker, &asked()).await.0, Some(expected(0, 1)));
    assert_eq!(asker.metrics.strays(), 4);
}

#[tokio::test]
async fn another_server_is_asked_when_one_fails_or_is_gone() {
    let gone = "127.0.0.1:1".parse().unwrap();
    for rcode in [2, 4, 5] {
        let servers = [gone, server(says(rcode, 1)).await, server(says(0, 2)).await];
        let asker = asker(&servers, "");
        assert_eq!(exchange(&asker, &asked()).await, (Some(expected(0, 2)), Outcome::Answered));
        assert_eq!(asker.resolvers.order(None)[2], gone);
    }
}

#[tokio::test]
async fn when_all_fail_the_first_failure_passes() {
    let servers = [server(says(2, 1)).await, server(says(5, 2)).await];
    let asker = asker(&servers, "");
    assert_eq!(exchange(&asker, &asked()).await, (Some(expected(2, 1)), Outcome::Failed));
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_silent_and_then_first() {
    let silent = server(silent).await;
    let servers = [silent, server(says(0, 2)).await];
    // The longest patience there is: on a busy machine an answer takes its time too.
    let asker = asker(&servers, "options timeout:4");
    let begun = Instant::now();
    assert_eq!(exchange(&asker, &asked()).await.0, Some(expected(0, 2)));
    assert!(begun.elapsed() >= asker.resolvers.patience());
    assert_eq!(asker.resolvers.order(None)[1], silent);
    let begun = Instant::now();
    assert_eq!(exchange(&asker, &asked()).await.0, Some(expected(0, 2)));
    assert!(begun.elapsed() < asker.resolvers.patience());
}

#[tokio::test]
async fn nobody_is_there() {
    let gone = ["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
    let asker = asker(&gone, "");
    assert_eq!(exchange(&asker, &asked()).await, (Some(asked().failure()), Outcome::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn nobody_answers() {
    let asker = asker(&[server(silent).await], "");
    let begun = Instant::now();
    assert_eq!(exchange(&asker, &asked()).await, (None, Outcome::Unanswered));
    assert_eq!(begun.elapsed().as_secs(), asker.resolvers.life().as_secs());
}
