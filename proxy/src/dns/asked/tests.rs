use super::*;

/// A question about example.com's A record with EDNS behind it.
const QUESTION: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x07example\x03COM\0\0\x01\0\x01\
    \0\0\x29\x04\xd0\0\0\0\0\0\0";

/// The answer to it, under another id and with the name's case changed.
fn answer(id: u16, flags: u16) -> Vec<u8> {
    let mut message = with_id(QUESTION.to_vec(), id);
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[13] = b'E';
    message
}

fn asked() -> Asked {
    Asked::read(QUESTION).unwrap()
}

#[test]
fn changes_nothing_but_the_id() {
    let asked = asked();
    assert_eq!((asked.id(), asked.name().map(Name::as_str)), (0x1234, Some("example.com")));
    let sent = asked.under(0xabcd);
    assert_eq!((&sent[..2], &sent[2..]), (&[0xab, 0xcd][..], &QUESTION[2..]));
    assert_eq!(with_id(sent, 0x1234), QUESTION);
    assert_eq!(with_id(vec![1], 7), [1]);
}

#[test]
fn knows_its_answer() {
    let asked = asked();
    assert_eq!(asked.meaning(&answer(7, 0x8180), 7), Some(Meaning::Answer));
    assert_eq!(asked.meaning(&answer(7, 0x8183), 7), Some(Meaning::Answer), "no such name");
    for rcode in [2, 4, 5] {
        assert_eq!(asked.meaning(&answer(7, 0x8180 | rcode), 7), Some(Meaning::Failure), "{rcode}");
    }
    let bare = [0, 7, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(asked.meaning(&bare, 7), Some(Meaning::Answer), "could not be read");
}

#[test]
fn refuses_what_is_not_its_answer() {
    let asked = asked();
    assert_eq!(asked.meaning(&answer(8, 0x8180), 7), None, "another id");
    assert_eq!(asked.meaning(&answer(7, 0x0100), 7), None, "a question");
    let changed = |at: usize, value: u8| {
        let mut message = answer(7, 0x8180);
        message[at] = value;
        asked.meaning(&message, 7)
    };
    assert_eq!(changed(14, b'y'), None, "another name");
    assert_eq!(changed(26, 0x1c), None, "another type");
    assert_eq!(changed(28, 3), None, "another class");
    assert_eq!(changed(5, 0), None, "no question and no error");
    assert_eq!(changed(5, 2), None, "two questions");
    for cut in 0..29 {
        assert_eq!(asked.meaning(&answer(7, 0x8180)[..cut], 7), None, "cut at {cut}");
    }
}

#[test]
fn a_question_that_cannot_be_read_is_sent_on_and_teaches_nothing() {
    let mut odd = QUESTION.to_vec();
    odd[12] = 0xc0;
    odd[13] = 12;
    let asked = Asked::read(&odd).unwrap();
    assert_eq!(asked.name(), None);
    assert_eq!(asked.meaning(&answer(7, 0x8181), 7), Some(Meaning::Answer));
    assert_eq!(asked.meaning(&answer(8, 0x8181), 7), None);
    let none = [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(Asked::read(&none).is_some_and(|asked| asked.name().is_none()));
}

#[test]
fn says_that_no_server_is_there() {
    let failure = asked().failure();
    assert_eq!(failure[..4], [0x12, 0x34, 0x81, 0x02]);
    assert_eq!(failure[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(failure[12..], QUESTION[12..29]);
    assert_eq!(asked().meaning(&failure, 0x1234), Some(Meaning::Failure));
    let bare = Asked::read(&[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .unwrap()
        .failure();
    assert_eq!(bare, [0, 1, 0x81, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn answers_and_stubs_are_no_questions() {
    assert_eq!(Asked::read(&answer(7, 0x8180)), None);
    assert_eq!(Asked::read(&QUESTION[..11]), None);
    assert_eq!(Asked::read(b""), None);
}
