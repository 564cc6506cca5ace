use super::*;
use crate::dns::testing::{answer, question};

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let framed = messages.iter().map(|message| {
        [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    });
    framed.collect::<Vec<_>>().concat()
}

fn ids(talk: &mut Talk, answers: &[Vec<u8>]) -> Vec<u16> {
    let mut ids = Vec::new();
    talk.hear_server(&framed(answers), |asked, _, _| ids.push(asked.id()));
    ids
}

#[tokio::test]
async fn answers_find_their_questions_in_any_order() {
    let mut talk = Talk::new();
    let questions: Vec<_> = (1..=4)
        .map(|id| question(id, &format!("n{id}.example")))
        .collect();
    let stream = framed(&questions);
    for chunk in stream.chunks(5) {
        assert_eq!(talk.hear_client(chunk), 0);
    }
    assert_eq!(talk.said.as_deref(), Some(&stream[..]));
    let mut answers: Vec<_> = questions
        .iter()
        .map(|q| answer(q, 0, [11, 0, 0, 1]))
        .collect();
    answers.reverse();
    let stray = answer(&question(4, "other.example"), 0, [11, 0, 0, 9]);
    assert_eq!(ids(&mut talk, &[stray, answers[0].clone(), answers[0].clone()]), [4]);
    assert_eq!(talk.said, None, "a server has spoken");
    assert_eq!(ids(&mut talk, &answers[1..]), [3, 2, 1]);
    assert!(talk.waiting.is_empty());
}

#[tokio::test]
async fn equal_ids_are_told_apart_by_their_questions() {
    let mut talk = Talk::new();
    let questions = [question(7, "a.example"), question(7, "b.example")];
    talk.hear_client(&framed(&questions));
    let mut names = Vec::new();
    let answers: Vec<_> = questions
        .iter()
        .rev()
        .map(|q| answer(q, 0, [11, 0, 0, 1]))
        .collect();
    talk.hear_server(&framed(&answers), |asked, _, _| {
        names.push(asked.name().unwrap().to_string())
    });
    assert_eq!(names, ["b.example", "a.example"]);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let mut talk = Talk::new();
    for id in 0..2_000 {
        talk.hear_client(&framed(&[question(id, "www.a-longer-name.example")]));
        assert!(talk.said.as_ref().is_none_or(|said| said.len() <= MAX_SAID));
    }
    assert_eq!((talk.waiting.len(), talk.said), (MAX_WAITING, None));
}

#[tokio::test]
async fn counts_what_is_no_question() {
    let mut talk = Talk::new();
    let messages = [b"junk".to_vec(), answer(&question(1, "a.example"), 0, [11, 0, 0, 1])];
    assert_eq!(talk.hear_client(&framed(&messages)), 2);
    assert!(talk.waiting.is_empty() && !talk.client_ended);
    talk.hear_client(b"");
    assert!(talk.client_ended);
}
