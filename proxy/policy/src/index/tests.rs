//! The index against looking at each item.

use proptest::prelude::*;

use super::*;

fn range(limit: u8) -> impl Strategy<Value = (u8, u8)> {
    prop_oneof![
        3 => (0..limit).prop_map(|at| (at, at)),
        2 => (0..limit, 0..limit).prop_map(|(a, b)| (a.min(b), a.max(b))),
        1 => Just((0, limit)),
    ]
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let one = (range(40), range(6), range(20), range(5), range(3), any::<bool>());
    prop::collection::vec(one, 0..120).prop_map(|all| {
        all.into_iter()
            .zip(0..)
            .map(|((peer, local, port, app, proto, conditional), outcome)| Item {
                peer: (peer.0.into(), peer.1.into()),
                local: (local.0.into(), local.1.into()),
                port: (port.0.into(), port.1.into()),
                app: (app.0.into(), app.1.into()),
                proto: (proto.0.into(), proto.1.into()),
                outcome,
                conditional,
            })
            .collect()
    })
}

fn point() -> impl Strategy<Value = Point> {
    (0u8..44, 0u8..8, 0u8..24, 0u8..7, 0u8..5).prop_map(|(peer, local, port, app, proto)| Point {
        peer: peer.into(),
        local: local.into(),
        port: port.into(),
        app: app.into(),
        proto: proto.into(),
    })
}

proptest! {
    #[test]
    fn finds_the_first_item_that_holds_a_point(items in items(), points in prop::collection::vec(point(), 1..30), turn_down: bool) {
        let index = Index::new(items.clone());
        let accept = |outcome: u32| !(turn_down && items[outcome as usize].conditional);
        for point in points {
            let expected = items
                .iter()
                .find(|item| item.holds(&point) && accept(item.outcome))
                .map_or(NO_MATCH, |item| item.outcome);
            prop_assert_eq!(index.search(&point, NO_MATCH, &accept), expected);
        }
    }
}

#[test]
fn overlaps_without_end_stay_within_the_bound_and_right() {
    let items: Vec<Item> = (0u32..2_000)
        .map(|outcome| Item {
            peer: (u128::from(outcome), u128::from(outcome) * 3 + 7),
            local: (u128::from(outcome % 97), u128::from(outcome % 97) * 2 + 11),
            port: (u16::try_from(outcome).unwrap(), u16::try_from(outcome * 5).unwrap()),
            app: (outcome % 89, outcome % 89 + outcome),
            proto: (0, 1),
            outcome,
            conditional: false,
        })
        .rev()
        .zip(0u32..)
        .map(|(item, outcome)| Item { outcome, ..item })
        .collect();
    let index = Index::new(items.clone());
    assert!(index.slots.len() + index.lists.len() < items.len() * 200, "{}", index.slots.len());
    for at in 0..500u32 {
        let point = Point {
            peer: u128::from(at * 7),
            local: u128::from(at % 120),
            port: u16::try_from(at * 9).unwrap(),
            app: at * 3,
            proto: 0,
        };
        let expected = items
            .iter()
            .find(|item| item.holds(&point))
            .map_or(NO_MATCH, |item| item.outcome);
        assert_eq!(index.search(&point, NO_MATCH, &|_| true), expected);
    }
}
