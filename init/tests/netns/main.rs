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

/// Compares outcomes with a reviewed file; `OUTRIDER_BLESS=1` writes it instead. On a busy machine an answer may come
/// too late: where one is missing, and only there, it is looked again.
fn compare(file: &str, look: impl Fn() -> String) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OUTRIDER_BLESS").is_some() {
        std::fs::write(&path, look()).expect("write the golden file");
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file");
    same(file, &expected, &again(&expected, look));
}

/// What is seen, looked at again as long as answers are missing in it.
fn again(expected: &str, look: impl Fn() -> String) -> String {
    let mut found = look();
    for _ in 0..LOOKS {
        let mut pairs = expected.lines().zip(found.lines());
        let are_missing = pairs.all(|(one, other)| one == other || other.ends_with(": nothing"));
        if expected == found || !are_missing {
            break;
        }
        found = look();
    }
    found
}

/// What is seen twice in a row: the same rules, the same outcomes. On a busy machine an answer may come too late once.
fn settled(look: impl Fn() -> String) -> String {
    let mut last = look();
    for _ in 1..LOOKS {
        let next = look();
        if next == last {
            return next;
        }
        last = next;
    }
    same("the same rules, the same outcomes", &last, &look());
    last
}

/// Looks before answers that are missing do not come.
const LOOKS: usize = 5;

/// Two texts are equal; says which lines are not.
fn same(what: &str, expected: &str, found: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        let absent = |line: &&str| !other.lines().any(|known| known == *line);
        one.lines().filter(absent).map(str::to_owned).collect()
    };
    let (missing, surplus) = (only(expected, found), only(found, expected));
    assert!(expected == found, "{what}: missing: {missing:#?}\nsurplus: {surplus:#?}");
}
