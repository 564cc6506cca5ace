use proptest::prelude::*;

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn meters() -> Meters {
    Meters::new(|kind| Some(kind.default_limit()))
}

fn peer(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0x0a00_0000 | number).into()
}

fn limit(upper: u32, span: u8, lower: u32) -> MeterLimit {
    MeterLimit::new(upper, span, lower).unwrap()
}

/// Which of the events fire, each at a millisecond.
fn fires(limit: MeterLimit, events: &[u64]) -> Vec<bool> {
    let mut rate = Gauge::new(MeterKind::SynFlood, Duration::from_millis(events[0]));
    events
        .iter()
        .map(|at| rate.add(limit, Duration::from_millis(*at), 0))
        .collect()
}

#[test]
fn the_eight_hundredth_syn_of_five_seconds_is_a_flood() {
    let mut meters = meters();
    let at = |event: u64| Duration::from_millis(event * 5);
    let fired: Vec<_> = (0..801)
        .map(|event| meters.enter(MeterKind::SynFlood, PEER, at(event)).fires)
        .collect();
    assert_eq!(fired.iter().position(|fires| *fires), Some(799));
    assert!(!meters.enter(MeterKind::SynFlood, peer(2), at(801)).fires, "another peer");
}

#[test]
fn a_steady_flood_stays_on_and_is_forgotten_soon() {
    let mut events: Vec<u64> = (0..200_000).map(|event| event / 10).collect();
    let flood = events.len();
    // Behind it, ten a second for a minute.
    events.extend((0..600).map(|event| 20_000 + event * 100));
    let fired = fires(MeterKind::SynFlood.default_limit(), &events);
    assert!(fired[799..flood].iter().all(|fires| *fires));
    let last = fired.iter().rposition(|fires| *fires).unwrap();
    assert!(events[last] <= 30_000, "on until {} ms", events[last]);
}

#[test]
fn between_the_limits_a_meter_stays_as_it_is() {
    let limit = limit(100, 1, 60);
    let rate = |per_second: u64, from: u64| {
        (0..per_second * 3).map(move |event| from * 1_000 + event * 1_000 / per_second)
    };
    let between = fires(limit, &rate(80, 0).collect::<Vec<_>>());
    assert!(!between.contains(&true));
    let events: Vec<_> = rate(150, 0).chain(rate(80, 3)).chain(rate(50, 6)).collect();
    let fired = fires(limit, &events);
    let second = |second: u64| {
        let here = events
            .iter()
            .zip(&fired)
            .filter(move |(at, _)| **at / 1_000 == second);
        here.map(|(_, fires)| *fires).collect::<Vec<_>>()
    };
    assert!(second(5).iter().all(|fires| *fires), "80 a second after 150");
    assert!(second(8).iter().all(|fires| !fires), "50 a second");
}

#[test]
fn levels_count_what_is_open() {
    let mut meters = Meters::new(|_| Some(limit(3, 1, 2)));
    let enter = |meters: &mut Meters| {
        meters
            .enter(MeterKind::SourceSessions, PEER, second(1))
            .fires
    };
    assert_eq!([enter(&mut meters), enter(&mut meters), enter(&mut meters)], [false, false, true]);
    meters.leave(PEER, second(2));
    assert!(meters.fires(MeterKind::SourceSessions, PEER), "two are not below the lower limit");
    meters.leave(PEER, second(2));
    assert!(!enter(&mut meters), "it went off with one");
    for _ in 0..5 {
        meters.leave(PEER, second(3));
    }
    meters.advance(second(5));
    assert_eq!(meters.len(), 1, "idle for two seconds");
    meters.advance(second(6));
    assert_eq!(meters.len(), 0);
    meters.leave(PEER, second(6));
    assert!(!enter(&mut meters));
    meters.advance(second(3_600));
    assert_eq!(meters.len(), 1, "one is open for an hour");
}

#[test]
fn a_scan_is_many_targets_and_not_many_tries() {
    let mut meters = meters();
    let mut ports = |ports: std::ops::Range<u16>, at: u64| {
        ports
            .map(|port| {
                meters
                    .tried(PEER, ([10, 0, 0, 1], port).into(), second(at))
                    .fires
            })
            .collect::<Vec<_>>()
    };
    for at in 0..100 {
        assert!(!ports(0..20, at).contains(&true), "a scraper of 20 ports");
    }
    let scan = ports(100..200, 200);
    assert_eq!(scan.iter().position(|fires| *fires), Some(49));
    assert!(!ports(0..20, 300).contains(&true), "the scan is over");
}

#[test]
fn hosts_count_as_ports_do() {
    let mut meters = meters();
    let tries = (0..50).map(|host| {
        meters
            .tried(PEER, ([10, 0, 0, host], 22).into(), second(1))
            .fires
    });
    assert!(tries.last().unwrap());
}

#[test]
fn a_fire_is_logged_every_thirty_seconds_with_the_hits_between() {
    let mut meters = Meters::new(|_| Some(limit(1, 1, 1)));
    let mut log = |milliseconds| {
        meters
            .enter(MeterKind::IcmpFlood, PEER, Duration::from_millis(milliseconds))
            .log
    };
    let first = log(0).unwrap();
    assert_eq!((first.hits, first.count), (1, 1));
    let later: Vec<_> = (1..=60).filter_map(|half| log(half * 500)).collect();
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].hits, 60);
    assert_eq!(log(60_000).map(|log| log.hits), Some(1), "idle between");
}

#[test]
fn spoofed_sources_cannot_fill_the_table() {
    let mut meters = meters();
    let most = u32::try_from(MAX_METERS).unwrap();
    // A peer that floods among a million others, one packet each.
    let mut fired = false;
    for number in 0..1_000_000 {
        let _one = meters.enter(MeterKind::SynFlood, peer(number + 1), second(1));
        if number % 1_000 == 0 {
            fired |= meters.enter(MeterKind::SynFlood, PEER, second(1)).fires;
        }
    }
    assert!(fired, "seen often enough to stay");
    assert_eq!(meters.len(), MAX_METERS);
    assert_eq!(meters.evicted(), u64::from(1_000_001 - most));
    meters.advance(second(9));
    assert_eq!(meters.len(), 0, "all idle");
}

#[test]
fn levels_that_are_in_use_go_last() {
    let mut meters = meters();
    for number in 0..u32::try_from(MAX_METERS).unwrap() {
        let _one = meters.enter(MeterKind::SourceSessions, peer(number), second(1));
        if number == 40 {
            meters.leave(peer(number), second(1));
        }
    }
    let _one = meters.enter(MeterKind::SourceSessions, PEER, second(2));
    let gone = |number: u32| {
        !meters
            .states(second(2))
            .any(|state| state.peer == Some(peer(number)))
    };
    assert!(gone(40), "nothing of it was open");
    assert_eq!(meters.evicted(), 1);
}

#[test]
fn kinds_that_are_off_count_nothing() {
    let mut meters = Meters::new(|_| None);
    for _ in 0..10_000 {
        assert_eq!(meters.enter(MeterKind::SynFlood, PEER, second(1)), Reading::default());
    }
    assert!(meters.is_empty() && !meters.is_on(MeterKind::SynFlood));
}

#[test]
fn mapped_addresses_are_the_peers_they_map() {
    let mut meters = meters();
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    let _one = meters.enter(MeterKind::SynFlood, PEER, second(1));
    let _two = meters.enter(MeterKind::SynFlood, mapped, second(1));
    let states: Vec<_> = meters.states(second(2)).collect();
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].count, states[0].idle), (2, second(1)));
}

#[test]
fn limits_are_checked() {
    assert!(MeterLimit::new(0, 1, 0).is_err());
    assert!(MeterLimit::new(1, 0, 1).is_err());
    assert!(MeterLimit::new(1, 1, 2).is_err());
    assert!(MeterLimit::new(1, 1, 0).is_ok());
}

/// Events of the last span up to each one, that one included: what a window that slides exactly has.
fn exact(limit: MeterLimit, events: &[u64]) -> Vec<u32> {
    let span = u64::from(limit.span()) * 1_000;
    (0..events.len())
        .map(|end| {
            let window = events[..=end].iter().filter(|at| **at + span > events[end]);
            u32::try_from(window.count()).unwrap()
        })
        .collect()
}

proptest! {
    /// Twice the limit within a span is always found, half of it never; between, the window is as
    /// good as one that is kept in a single number can be.
    #[test]
    fn the_window_is_within_a_factor_of_two_of_an_exact_one(
        upper in 4_u32..40,
        span in 1_u8..6,
        gaps in prop::collection::vec(0_u64..400, 1..400),
    ) {
        let limit = limit(upper, span, upper);
        let events: Vec<u64> = gaps
            .iter()
            .scan(0, |at, gap| { *at += gap; Some(*at) })
            .collect();
        let (fired, exact) = (fires(limit, &events), exact(limit, &events));
        let millis = u64::from(span) * 1_000;
        for (at, count) in exact.iter().enumerate() {
            if *count >= 2 * upper {
                let window = (0..=at).filter(|event| events[*event] + millis > events[at]);
                prop_assert!(window.clone().any(|event| fired[event]), "{count} of {upper} missed");
            }
        }
        if exact.iter().all(|count| *count * 2 < upper) {
            prop_assert!(!fired.contains(&true));
        }
    }

    /// Whatever happens, in whatever order of times, the table keeps its cap and panics at nothing.
    #[test]
    fn any_events_are_survived(
        events in prop::collection::vec((0_usize..6, any::<u32>(), any::<u64>()), 0..300),
        upper in 1_u32..20,
    ) {
        let mut meters = Meters::new(|_| Some(limit(upper, 1, 1)));
        for (what, source, at) in events {
            let at = Duration::from_millis(at);
            match MeterKind::ALL.get(what) {
                Some(MeterKind::PortScan) => {
                    let _one = meters.tried(peer(source % 8), (peer(source), 1).into(), at);
                }
                Some(kind) => {
                    let _one = meters.enter(*kind, peer(source % 8), at);
                }
                None => {
                    meters.leave(peer(source % 8), at);
                    meters.advance(at);
                }
            }
        }
        prop_assert!(meters.len() <= 8 * 5);
        prop_assert!(meters.states(Duration::ZERO).all(|state| state.count < 400));
    }
}
