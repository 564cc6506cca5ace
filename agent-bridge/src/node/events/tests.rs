use outrider_telemetry::Registry;

use super::*;

fn events() -> Arc<Events> {
    Arc::new(Events::new(Counts::register(&Registry::default()).unwrap()))
}

fn mode(name: &str) -> Body {
    Body::Mode(ModeChange { workload: name.into(), group: String::new(), mode: String::new() })
}

fn flow() -> Body {
    Body::Flow(Arc::new(Flow {
        workload: "w".into(),
        client: String::new(),
        server: String::new(),
        app: String::new(),
        host: String::new(),
        sni: String::new(),
        action: String::new(),
        rule: 0,
        bytes_client: 0,
        bytes_server: 0,
        at: 0,
    }))
}

/// What is there without waiting.
async fn now(listener: &mut Listener) -> Option<Heard> {
    tokio::select! {
        biased;
        heard = listener.next() => heard,
        () = std::future::ready(()) => None,
    }
}

fn said(heard: Option<Heard>) -> String {
    match heard {
        Some(Heard::Event(EventKind::Mode, body)) => match &*body {
            Body::Mode(change) => change.workload.clone(),
            _ => panic!("another body"),
        },
        Some(Heard::Event(kind, _)) => kind.label().into(),
        Some(Heard::Gap(gap)) => format!("gap {:?}", gap.missed),
        None => "nothing".into(),
    }
}

#[tokio::test]
async fn kinds_come_in_the_order_they_happened_in() {
    let events = events();
    let mut both = events.listen(&EventKind::ALL, None).unwrap();
    let mut modes = events.listen(&[EventKind::Mode], None).unwrap();
    for body in [mode("a"), flow(), mode("b")] {
        events.publish(body);
    }
    for expected in ["a", "flow", "b", "nothing"] {
        assert_eq!(said(now(&mut both).await), expected);
    }
    for expected in ["a", "b", "nothing"] {
        assert_eq!(said(now(&mut modes).await), expected);
    }
}

#[tokio::test]
async fn a_listener_that_comes_back_gets_what_it_missed() {
    let events = events();
    events.publish(mode("before"));
    let mut listener = events.listen(&[EventKind::Mode], None).unwrap();
    events.publish(mode("a"));
    assert_eq!(said(now(&mut listener).await), "a");
    let position: Position = listener.position().to_string().parse().unwrap();
    drop(listener);
    events.publish(mode("b"));
    let mut listener = events.listen(&[EventKind::Mode], Some(position)).unwrap();
    assert_eq!(said(now(&mut listener).await), "b");
    assert_eq!(said(now(&mut listener).await), "nothing");
}

#[tokio::test]
async fn what_is_not_kept_is_a_gap_with_the_count_of_the_wanted_kinds() {
    let events = events();
    let position = events.listen(&[EventKind::Mode], None).unwrap().position();
    (0..MAX_KEPT + 3).for_each(|_| events.publish(flow()));
    (0..MAX_KEPT + 5).for_each(|_| events.publish(mode("m")));
    let mut listener = events.listen(&[EventKind::Mode], Some(position)).unwrap();
    assert_eq!(said(now(&mut listener).await), "gap Some(5)");
    for _ in 0..MAX_KEPT {
        assert_eq!(said(now(&mut listener).await), "m");
    }
    assert_eq!(said(now(&mut listener).await), "nothing");
}

#[tokio::test]
async fn another_life_and_the_future_are_told_apart() {
    let events = events();
    events.publish(mode("a"));
    let life = events.life;
    let other = Position { life: life + 1, next: [9; KINDS] };
    let mut listener = events.listen(&EventKind::ALL, Some(other)).unwrap();
    assert_eq!(said(now(&mut listener).await), "gap None");
    assert_eq!(said(now(&mut listener).await), "a");
    let future = Position { life, next: [u64::MAX; KINDS] };
    let mut listener = events.listen(&EventKind::ALL, Some(future)).unwrap();
    assert_eq!(said(now(&mut listener).await), "nothing");
    events.publish(mode("b"));
    assert_eq!(said(now(&mut listener).await), "b");
    assert!("1-1.2.3.4".parse::<Position>().is_ok(), "of an earlier bridge");
    for wrong in ["", "1", "1-2", "1-2.3.4", "x-1.2.3.4", "1-1.2.3.4.5.6", "1-a.2.3.4"] {
        assert!(wrong.parse::<Position>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_slow_listener_is_dropped_and_counted_and_places_are_bounded() {
    let events = events();
    let mut slow = events.listen(&[EventKind::Mode], None).unwrap();
    assert_eq!(said(now(&mut slow).await), "nothing");
    (0..=MAX_KEPT).for_each(|_| events.publish(mode("m")));
    assert!(slow.next().await.is_none());
    assert_eq!(events.counts.all_sent_away()["slow-listener"], 1);
    let all: Vec<_> = std::iter::from_fn(|| events.listen(&EventKind::ALL, None)).collect();
    assert_eq!((all.len() + 1, events.listeners()), (MAX_LISTENERS, MAX_LISTENERS));
    assert_eq!(events.counts.all_sent_away()["too-many-listeners"], 1);
    drop(all);
    assert_eq!(events.listeners(), 1);
    events.close();
    let mut late = events.listen(&EventKind::ALL, None).unwrap();
    assert!(late.next().await.is_none());
}
