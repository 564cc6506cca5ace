//! Real rules in real network namespaces. Needs root; says SKIPPED without, fails if
//! `OUTRIDER_REQUIRE_NETNS=1`.

mod adequacy;
mod attacks;
mod crash;
mod lifecycle;
mod minimal;
mod outcomes;
mod queue;
mod verify;
mod world;

/// Compares with a reviewed file; `OUTRIDER_BLESS=1` writes it instead.
fn compare(file: &str, text: &str) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OUTRIDER_BLESS").is_some() {
        std::fs::write(&path, text).expect("write the golden file");
    }
    same(file, &std::fs::read_to_string(&path).expect("a golden file"), text);
}

/// Two texts are equal; says which lines are not.
fn same(what: &str, expected: &str, found: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        let absent = |line: &&str| !other.lines().any(|known| known == *line);
        one.lines().filter(absent).map(str::to_owned).collect()
    };
    let (missing, surplus) = (only(expected, found), only(found, expected));
    assert!(expected == found, "{what}: missing: {missing:#?}\nsurplus: {surplus:#?}");
}
