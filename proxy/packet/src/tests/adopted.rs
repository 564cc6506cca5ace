//! Connections that somebody else knows of.

use std::time::Duration;

use outrider_model::Side;

use super::{Heard, client, server};
use crate::{Engine, FlowEnd, Frame, Limits, LinkType, build::Talk};

fn feed(engine: &mut Engine, packets: &[Vec<u8>], heard: &mut Heard) {
    for packet in packets {
        let (bytes, wire) = (&packet[..], packet.len());
        let frame = Frame { link: LinkType::Raw, at: Duration::ZERO, bytes, wire };
        engine.feed(&frame, &mut |event| heard.hear(event));
    }
}

#[test]
fn a_connection_of_which_nothing_was_seen_goes_on_where_it_is_seen() {
    let (mut engine, mut heard) = (Engine::new(Limits::default()), Heard::default());
    assert!(!engine.keep_tcp(server(), client()));
    let flow = engine.adopt_tcp(server(), client(), &mut |event| heard.hear(event));
    assert_eq!((heard.opened[0].client, heard.opened[0].server), (client(), server()));
    assert_eq!(engine.adopt_tcp(client(), server(), &mut |event| heard.hear(event)), None);
    assert!(engine.keep_tcp(client(), server()) && engine.keep_tcp(server(), client()));
    let place = engine.tcp(flow.unwrap()).unwrap();
    assert_eq!((place.client, place.server), (None, None));
    let talk = Talk::new(client(), server())
        .open()
        .client(b"one")
        .server(b"two");
    feed(&mut engine, &talk.close().packets[3..], &mut heard);
    engine.finish(&mut |event| heard.hear(event));
    assert_eq!((heard.text(Side::Client), heard.text(Side::Server)), (&b"one"[..], &b"two"[..]));
    let record = &heard.records[0];
    assert_eq!((record.mid_stream, record.established, record.end), (true, true, FlowEnd::Closed));
    assert_eq!((heard.records.len(), engine.counters().tcp_flows), (1, 1));
}

#[test]
fn a_new_connection_of_the_same_ends_is_read_from_its_beginning() {
    let (mut engine, mut heard) = (Engine::new(Limits::default()), Heard::default());
    engine.adopt_tcp(client(), server(), &mut |event| heard.hear(event));
    let talk = Talk::new(client(), server()).open().client(b"one");
    feed(&mut engine, &talk.packets, &mut heard);
    engine.finish(&mut |event| heard.hear(event));
    assert_eq!(heard.text(Side::Client), b"one");
    assert!(!heard.records[0].mid_stream);
}

#[test]
fn silence_ends_it_unless_it_is_kept() {
    let (mut engine, mut heard) = (Engine::new(Limits::default()), Heard::default());
    engine.adopt_tcp(client(), server(), &mut |event| heard.hear(event));
    for minutes in [15, 30] {
        engine.advance(Duration::from_secs(minutes * 60), &mut |event| heard.hear(event));
        assert!(engine.keep_tcp(client(), server()));
    }
    engine.advance(Duration::from_secs(51 * 60), &mut |event| heard.hear(event));
    assert!(!engine.keep_tcp(client(), server()));
    assert_eq!(heard.records[0].end, FlowEnd::Silent);
}

#[test]
fn a_full_table_takes_none_and_gives_up_none() {
    let mut engine = Engine::new(Limits { flows: 1, ..Limits::default() });
    let mut heard = Heard::default();
    engine.adopt_tcp(client(), server(), &mut |event| heard.hear(event));
    let mut other = client();
    other.set_port(1);
    assert_eq!(engine.adopt_tcp(other, server(), &mut |event| heard.hear(event)), None);
    assert_eq!((engine.open(), engine.counters().evicted), (1, 0));
}
