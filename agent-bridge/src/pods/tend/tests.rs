use super::*;
use crate::pods::Pod;

const HERE: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9aa";
const GONE: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ab";
const OTHER: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ac";
const FILED: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ad";

fn known(origin: Origin) -> Known {
    let here = Pod { has_mailbox: true, ..Pod::default() };
    Known { origin, pods: [(HERE.to_owned(), here), (OTHER.to_owned(), Pod::default())].into() }
}

/// Looks as often as it takes to sweep twice.
fn two_sweeps(tender: &mut Tender, known: &Known) -> BTreeMap<String, Refused> {
    (0..=SWEEP_EVERY)
        .map(|_| tender.tend(known))
        .last()
        .unwrap()
}

#[test]
fn directories_without_a_pod_go_after_a_while_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    for uid in [GONE, OTHER, FILED] {
        std::fs::create_dir(dir.path().join(uid)).unwrap();
    }
    std::fs::write(dir.path().join(format!("{FILED}.json")), "{}").unwrap();
    let mut tender = Tender::new(dir.path());
    tender.tend(&known(Origin::Server));
    assert!(dir.path().join(HERE).exists(), "made for the pod");
    assert!(dir.path().join(GONE).exists(), "its pod may be new");
    assert!(two_sweeps(&mut tender, &known(Origin::Server)).is_empty());
    assert!(!dir.path().join(GONE).exists());
    for uid in [HERE, OTHER, FILED] {
        assert!(dir.path().join(uid).exists(), "{uid}");
    }
}

#[test]
fn what_only_the_store_says_makes_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(GONE)).unwrap();
    let mut tender = Tender::new(dir.path());
    for origin in [Origin::Store, Origin::Nobody] {
        assert!(two_sweeps(&mut tender, &known(origin)).is_empty());
        assert!(two_sweeps(&mut tender, &known(origin)).is_empty());
    }
    assert!(dir.path().join(GONE).exists() && !dir.path().join(HERE).exists());
}

#[test]
fn what_stays_and_what_cannot_be_given_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(GONE).join("odd")).unwrap();
    std::fs::write(dir.path().join(HERE), "").unwrap();
    let mut tender = Tender::new(dir.path());
    let refused = two_sweeps(&mut tender, &known(Origin::Server));
    assert_eq!(refused[GONE].why, Unserved::LeftOver);
    assert!(refused[GONE].text.contains("odd"), "{}", refused[GONE].text);
    assert_eq!(refused[HERE].why, Unserved::Owner);
}
