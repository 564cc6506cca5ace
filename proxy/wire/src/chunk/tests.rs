//! Splitting, assembling, and their caps.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test")]

use outrider_model::{MacAddr, RuleId};
use proptest::prelude::*;

use super::{Assembler, Chunked, Position, split};
use crate::{
    ChunkFlags, List, WireError,
    limits::{MAX_DLP_ENTRIES, MAX_PENDING_SEQUENCES, MAX_REQUEST, MAX_SUBNETS, SPLIT_ABOVE},
    request::{BuildDlp, CfgDlp, Policy, Request, Rule, SensorChoice, SensorRule, Subnet, Subnets},
};

fn rules(ids: std::ops::Range<usize>, name: usize) -> Vec<Rule> {
    let rule = |id| Rule {
        id: RuleId(u32::try_from(id).expect("a number")),
        fqdn: Some("n".repeat(name)),
        ..Rule::default()
    };
    ids.map(rule).collect()
}

fn policy(chunk: ChunkFlags, mac: u8, ids: std::ops::Range<usize>) -> Policy {
    let macs = [MacAddr([mac; 6])].into_iter().collect();
    Policy { chunk, macs, rules: rules(ids, 0).into(), ..Policy::default() }
}

/// Parses the datagrams, and puts what they say together.
fn assemble(datagrams: &[Vec<u8>]) -> Policy {
    let (mut assembler, mut whole) = (Assembler::default(), None);
    for bytes in datagrams {
        assert!(bytes.len() <= SPLIT_ABOVE);
        let mut commands = Request::parse_datagram(bytes).expect("ours");
        match commands.remove(0).request {
            Ok(Request::CfgPolicy(chunk)) => whole = assembler.push(chunk).expect("in order"),
            other => panic!("{other:?}"),
        }
    }
    whole.expect("complete at its end")
}

#[test]
fn an_empty_request_is_one_chunk() {
    let empty = Policy { rules: List::nil(), ..policy(ChunkFlags::NONE, 1, 0..0) };
    let datagrams = split(&empty, Request::CfgPolicy).expect("small");
    assert_eq!(datagrams.len(), 1);
    let whole = assemble(&datagrams);
    assert_eq!(whole, Policy { chunk: ChunkFlags::WHOLE, ..empty });
}

#[test]
fn rules_of_both_families_travel_in_one_sequence() {
    let mixed = Policy { rules6: rules(500..590, 0), ..policy(ChunkFlags::WHOLE, 1, 0..50) };
    let datagrams = split(&mixed, Request::CfgPolicy).expect("small");
    assert_eq!(datagrams.len(), 4);
    assert_eq!(assemble(&datagrams), mixed);
}

#[test]
fn an_entry_that_fits_no_datagram_is_refused() {
    let rule = SensorRule { name: "n".repeat(MAX_REQUEST), ..SensorRule::default() };
    let build = BuildDlp { dlp_rules: vec![rule].into(), ..BuildDlp::default() };
    assert!(matches!(split(&build, Request::BuildDlp), Err(WireError::TooLong(_))));
}

#[test]
fn addressees_alone_that_fit_no_datagram_are_refused() {
    let macs = vec![MacAddr::default(); 500].into();
    let policy = Policy { macs, ..policy(ChunkFlags::NONE, 1, 0..0) };
    assert!(matches!(split(&policy, Request::CfgPolicy), Err(WireError::TooLong(_))));
}

#[test]
fn sensors_share_a_chunk_by_halves() {
    let choices = |count: usize| vec![SensorChoice::default(); count].into();
    let shares = |dlp, waf| {
        let all = CfgDlp {
            dlp_rule_names: choices(dlp),
            waf_rule_names: choices(waf),
            ..CfgDlp::default()
        };
        let (mut from, mut shares) = (Position::default(), Vec::new());
        while from != all.end() {
            let to = all.advance(from, 40);
            shares.push((to.first - from.first, to.second - from.second));
            from = to;
        }
        shares
    };
    assert_eq!(shares(60, 40), [(20, 20), (20, 20), (20, 0)]);
    assert_eq!(shares(10, 80), [(10, 30), (0, 40), (0, 10)]);
    assert_eq!(shares(0, 41), [(0, 40), (0, 1)]);
}

#[test]
fn nothing_takes_effect_before_the_end() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(policy(ChunkFlags::START, 1, 0..1)), Ok(None));
    assert_eq!(assembler.push(policy(ChunkFlags::NONE, 1, 1..2)), Ok(None));
    let whole = assembler.push(policy(ChunkFlags::END, 1, 2..3));
    assert_eq!(whole, Ok(Some(policy(ChunkFlags::WHOLE, 1, 0..3))));
    assert_eq!(assembler.push(policy(ChunkFlags::END, 1, 3..4)), Err(WireError::NoStart));
    assert_eq!(assembler.discarded(), 0);
}

#[test]
fn a_new_start_discards_what_was_pending() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(policy(ChunkFlags::START, 1, 0..1)), Ok(None));
    let whole = assembler.push(policy(ChunkFlags::WHOLE, 1, 5..6));
    assert_eq!(whole, Ok(Some(policy(ChunkFlags::WHOLE, 1, 5..6))));
    assert_eq!(assembler.discarded(), 1);
    assert_eq!(assembler.push(policy(ChunkFlags::END, 1, 6..7)), Err(WireError::NoStart));
}

#[test]
fn a_sequence_with_a_hole_never_takes_effect() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(policy(ChunkFlags::START, 1, 0..1)), Ok(None));
    assert!(assembler.abandon());
    assert_eq!(assembler.discarded(), 1);
    assert_eq!(assembler.push(policy(ChunkFlags::NONE, 1, 2..3)), Err(WireError::NoStart));
    assert_eq!(assembler.push(policy(ChunkFlags::END, 1, 3..4)), Err(WireError::NoStart));
}

#[test]
fn sequences_for_others_do_not_mix() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(policy(ChunkFlags::START, 1, 0..1)), Ok(None));
    assert_eq!(assembler.push(policy(ChunkFlags::START, 2, 10..11)), Ok(None));
    let first = assembler.push(policy(ChunkFlags::END, 1, 1..2));
    assert_eq!(first, Ok(Some(policy(ChunkFlags::WHOLE, 1, 0..2))));
    let second = assembler.push(policy(ChunkFlags::END, 2, 11..12));
    assert_eq!(second, Ok(Some(policy(ChunkFlags::WHOLE, 2, 10..12))));
}

#[test]
fn pending_sequences_are_capped_and_the_oldest_goes() {
    let mut assembler = Assembler::default();
    for mac in 0..=u8::try_from(MAX_PENDING_SEQUENCES).expect("few") {
        assert_eq!(assembler.push(policy(ChunkFlags::START, mac, 0..1)), Ok(None));
    }
    assert_eq!(assembler.discarded(), 1);
    assert_eq!(assembler.push(policy(ChunkFlags::END, 0, 1..2)), Err(WireError::NoStart));
    assert!(
        assembler
            .push(policy(ChunkFlags::END, 1, 1..2))
            .is_ok_and(|whole| whole.is_some())
    );
}

fn subnets(chunk: ChunkFlags, count: usize) -> Subnets<Subnet> {
    Subnets { chunk, subnets: vec![Subnet::default(); count].into(), subnets6: Vec::new() }
}

#[test]
fn what_is_assembled_is_capped_and_a_sequence_above_it_is_lost() {
    let mut assembler = Assembler::default();
    assert_eq!(assembler.push(subnets(ChunkFlags::START, MAX_SUBNETS)), Ok(None));
    let refused = WireError::TooMany { what: "subnets", count: MAX_SUBNETS + 1, cap: MAX_SUBNETS };
    assert_eq!(assembler.push(subnets(ChunkFlags::NONE, 1)), Err(refused));
    assert_eq!(assembler.discarded(), 1);
    assert_eq!(assembler.push(subnets(ChunkFlags::END, 1)), Err(WireError::NoStart));
    let fits = assembler.push(subnets(ChunkFlags::WHOLE, MAX_SUBNETS));
    assert!(fits.is_ok_and(|whole| whole.is_some()));
}

#[test]
fn every_list_has_its_cap() {
    let rules = rules(0..1, 0);
    let too_many =
        Policy { rules: vec![rules[0].clone(); Policy::CAP + 1].into(), ..Policy::default() };
    assert!(matches!(start(&too_many), WireError::TooMany { what: "rules", .. }));
    let choices = vec![SensorChoice::default(); MAX_DLP_ENTRIES + 1].into();
    let too_many = CfgDlp { dlp_rule_names: choices, ..CfgDlp::default() };
    assert!(matches!(start(&too_many), WireError::TooMany { what: "sensor choices", .. }));
    let rules = vec![SensorRule::default(); MAX_DLP_ENTRIES + 1].into();
    let too_many = BuildDlp { dlp_rules: rules, ..BuildDlp::default() };
    assert!(matches!(start(&too_many), WireError::TooMany { what: "sensor rules", .. }));
}

fn start<C: Chunked + std::fmt::Debug>(chunk: &C) -> WireError {
    let start = chunk.part(Position::default(), chunk.end(), ChunkFlags::START);
    Assembler::default().push(start).expect_err("above the cap")
}

proptest! {
    #[test]
    fn what_is_split_assembles_to_the_same(v4 in 0..300_usize, v6 in 0..300_usize, name in 0..250_usize) {
        let whole = Policy {
            rules: rules(0..v4, name).into(),
            rules6: rules(1000..1000 + v6, name),
            ..policy(ChunkFlags::WHOLE, 1, 0..0)
        };
        let datagrams = split(&whole, Request::CfgPolicy).expect("rules are small");
        prop_assert_eq!(assemble(&datagrams), whole);
    }
}
