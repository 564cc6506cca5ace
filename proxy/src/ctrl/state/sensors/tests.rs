use super::{
    super::tests::{add, done, refused, state},
    *,
};

const OURS: &str = "0a:58:0a:4d:01:05";
const OTHER: &str = "0a:58:0a:4d:02:05";

fn totals(effects: &[Effect]) -> SensorTotals {
    match effects {
        [Effect::SensorsChanged(totals)] => *totals,
        other => panic!("{other:?}"),
    }
}

fn build(flag: u8, rules: &str) -> String {
    format!(
        r#"{{"ctrl_bld_dlp":{{"flag":{flag},"dir":1,"dlp_rules":[{rules}],"mac":["{OURS}"],"delmac":[]}}}}"#
    )
}

fn rule(id: u32, name: &str, pattern: &str) -> String {
    format!(r#"{{"name":"{name}","id":{id},"patterns":["{pattern}"]}}"#)
}

fn choose(flag: u8, dlp: &str, waf: &str) -> String {
    format!(
        r#"{{"ctrl_cfg_dlp":{{"flag":{flag},"mac":["{OURS}"],"dlp_rule_names":[{dlp}],"waf_rule_names":[{waf}],"rule_ids":null,"waf_rule_ids":null,"ruletype":"inside","wafruletype":"wafinside"}}}}"#
    )
}

const GOOD: &str = "/a[0-9]+;?x/is; context body";

#[test]
fn chunks_are_put_together_and_nothing_holds_before_the_last() {
    let mut state = state();
    add(&mut state, OURS);
    let good = "/a{4}/is; context body";
    assert!(done(&mut state, &build(1, &rule(20_001, "a", good))).is_empty());
    assert!(done(&mut state, &build(0, &rule(30_001, "b", good))).is_empty());
    let whole = totals(&done(&mut state, &build(2, &rule(40_001, "c", good))));
    assert_eq!((whole.rules, whole.patterns, whole.refused, whole.enforced), (3, 3, 0, false));
    assert!(done(&mut state, &choose(1, r#"{"id":20001,"action":1}"#, "")).is_empty());
    let chosen = done(&mut state, &choose(2, "", r#"{"id":40001,"action":2}"#));
    assert_eq!((totals(&chosen).dlp, totals(&chosen).waf), (1, 1));
}

#[test]
fn what_the_data_path_would_not_compile_is_left_out_and_counted() {
    let mut state = state();
    add(&mut state, OURS);
    let bad = [
        rule(19_999, "a", "/a/is; context body"),
        rule(50_000, "a", "/a/is; context body"),
        rule(20_001, "", "/a/is; context body"),
        rule(20_001, "a(b", "/a/is; context body"),
        rule(20_001, "a", "a; context body"),
        rule(20_001, "a", "//is; context body"),
        rule(20_001, "a", "/a/q; context body"),
        rule(20_001, "a", "/a/is; context cookie"),
        rule(20_001, "a", "/a/is"),
        rule(20_001, "a", GOOD),
        r#"{"name":"a","id":20001,"patterns":[]}"#.to_owned(),
    ];
    let all = format!("{},{}", rule(20_001, "good", "!/a\\\\/b/is; context url"), bad.join(","));
    let found = totals(&done(&mut state, &build(3, &all)));
    assert_eq!((found.rules, found.refused), (1, bad.len()));
    let odd =
        choose(3, r#"{"id":40001,"action":1},{"id":20001,"action":3}"#, r#"{"id":1,"action":1}"#);
    let found = totals(&done(&mut state, &odd));
    assert_eq!((found.dlp, found.waf, found.refused), (0, 0, bad.len() + 3));
}

#[test]
fn the_text_of_a_detector_is_bounded() {
    let mut state = state();
    add(&mut state, OURS);
    let long = format!("/{}/is; context body", "a".repeat(480));
    let four =
        format!(r#"{{"name":"a","id":20001,"patterns":["{long}","{long}","{long}","{long}"]}}"#);
    let each = 1 + 4 * long.len();
    let fit = MAX_DETECTOR_TEXT / each;
    let chunks = fit / 3 + 2;
    let mut last = Vec::new();
    for chunk in 0..chunks {
        let flag = u8::from(chunk == 0) | (u8::from(chunk + 1 == chunks) << 1);
        last = done(&mut state, &build(flag, &[four.as_str(); 3].join(",")));
    }
    let found = totals(&last);
    assert_eq!((found.rules, found.refused), (fit, chunks * 3 - fit));
}

#[test]
fn a_detector_is_shared_lost_and_goes_with_its_workload() {
    let mut state = state();
    state.set_own(&[OURS, OTHER].map(|mac| mac.parse().unwrap()));
    add(&mut state, OTHER);
    add(&mut state, OURS);
    let good = rule(20_001, "a", "/a/is; context packet");
    let others = build(3, &good).replace(OURS, OTHER);
    assert!(done(&mut state, &others).is_empty(), "not the one that governs");
    let nobodys = others.replace(OTHER, "0a:58:0a:4d:03:05");
    assert!(done(&mut state, &nobodys).is_empty());
    let share = format!(
        r#"{{"ctrl_bld_dlpmac":{{"oldmac":["{OTHER}"],"addmac":["{OURS}"],"delmac":["{OTHER}"]}}}}"#
    );
    assert_eq!(totals(&done(&mut state, &share)).rules, 1);
    assert_eq!(totals(&done(&mut state, &build(3, ""))).rules, 0);
    done(&mut state, &build(3, &good));
    done(&mut state, &choose(3, r#"{"id":20001,"action":1}"#, ""));
    let drop = format!(r#"{{"ctrl_cfg_dlpmac":{{"delmac":["{OURS}"]}}}}"#);
    let left = totals(&done(&mut state, &drop));
    assert_eq!((left.dlp, left.rules), (0, 1));
    let gone = done(&mut state, &format!(r#"{{"ctrl_del_mac":{{"iface":"","mac":"{OURS}"}}}}"#));
    assert_eq!(gone.last(), Some(&Effect::SensorsChanged(SensorTotals::default())));
    assert_eq!(refused(&mut state, &drop.replace(&format!("\"{OURS}\""), "")), "no-workload");
}
