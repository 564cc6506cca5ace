use std::os::unix::fs::PermissionsExt;

use super::*;

fn row(key: &str, value: Option<&str>) -> Change {
    Change {
        table: Table::Modes,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

fn rows(store: &Store, table: Table) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    store
        .load(table, |key, value| found.push((text(key), text(value))))
        .unwrap();
    found
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/bridge.redb");
    let mut store = Store::open(&path, 1).unwrap();
    store
        .commit(&[row("a", Some("1")), row("b", Some("2"))])
        .unwrap();
    store
        .commit(&[row("a", None), row("b", Some("3"))])
        .unwrap();
    drop(store);
    let store = Store::open(&path, 2).unwrap();
    assert_eq!(rows(&store, Table::Modes), [("b".into(), "3".into())]);
    assert!(rows(&store, Table::Learned).is_empty());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(store.set_aside(), None);
}

#[test]
fn a_second_bridge_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let _store = Store::open(&path, 1).unwrap();
    assert!(matches!(Store::open(&path, 1), Err(StoreError::InUse(_))));
}

#[test]
fn a_file_that_is_no_store_is_set_aside_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    std::fs::write(&path, "not a store at all, but somebody's file").unwrap();
    let store = Store::open(&path, 77).unwrap();
    let aside = store.set_aside().unwrap();
    assert!(
        aside
            .to_string_lossy()
            .ends_with("bridge.redb.unreadable-77")
    );
    assert!(
        std::fs::read_to_string(aside)
            .unwrap()
            .starts_with("not a store")
    );
}

#[test]
fn a_damaged_store_is_set_aside_wherever_the_damage_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let mut store = Store::open(&path, 1).unwrap();
    let many: Vec<_> = (0..500)
        .map(|n| row(&format!("k{n}"), Some(&"v".repeat(200))))
        .collect();
    store.commit(&many).unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for step in 0..16 {
        let mut damaged = whole.clone();
        let at = step * whole.len() / 16;
        damaged
            .iter_mut()
            .skip(at)
            .take(4096)
            .for_each(|byte| *byte ^= 0x5a);
        let file = dir.path().join(format!("damaged{step}"));
        std::fs::write(&file, damaged).unwrap();
        let store = Store::open(&file, 1).unwrap();
        let kept = rows(&store, Table::Modes).len();
        assert!(kept == many.len() || store.set_aside().is_some(), "damage at {at}: {kept} rows");
    }
}

#[test]
fn a_newer_schema_is_set_aside_whole_for_the_newer_bridge() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let mut store = Store::open(&path, 1).unwrap();
    store.commit(&[row("a", Some("1"))]).unwrap();
    let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
    let newer = (SCHEMA + 1).to_be_bytes();
    transaction
        .open_table(Table::Meta.definition())
        .unwrap()
        .insert(SCHEMA_KEY, newer.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(store);
    let store = Store::open(&path, 77).unwrap();
    assert!(rows(&store, Table::Modes).is_empty() && store.knows_beginning());
    let aside = store.set_aside().unwrap().to_owned();
    assert!(aside.ends_with(format!("bridge.redb.schema-{}-77", SCHEMA + 1)), "{aside:?}");
    drop(store);
    // The bridge that wrote it has all of it.
    let database = Database::open(&aside).unwrap();
    let transaction = database.begin_read().unwrap();
    let modes = transaction.open_table(Table::Modes.definition()).unwrap();
    assert_eq!(modes.get("a".as_bytes()).unwrap().unwrap().value(), b"1");
    // What was begun is an ordinary one.
    assert_eq!(Store::open(&path, 78).unwrap().set_aside(), None);
}

#[test]
fn a_failed_commit_is_followed_by_one_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("bridge.redb"), 1).unwrap();
    store.let_go();
    store.commit(&[row("a", Some("1"))]).unwrap();
    assert_eq!(rows(&store, Table::Modes).len(), 1);
}

#[test]
fn an_older_schema_is_migrated_and_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let mut store = Store::open(&path, 1).unwrap();
    store.commit(&[row("a", Some("1"))]).unwrap();
    let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
    for table in [Table::Events, Table::Cursors, Table::Pending] {
        assert!(transaction.delete_table(table.definition()).unwrap());
    }
    {
        let mut meta = transaction.open_table(Table::Meta.definition()).unwrap();
        meta.insert(SCHEMA_KEY, 1u32.to_be_bytes().as_slice())
            .unwrap();
        assert!(meta.remove(BEGUN_KEY).unwrap().is_some());
    }
    transaction.commit().unwrap();
    assert!(store.knows_beginning());
    drop(store);
    let store = Store::open(&path, 1).unwrap();
    assert!(!store.knows_beginning(), "of a bridge that did not mark it");
    assert_eq!(rows(&store, Table::Modes), [("a".into(), "1".into())]);
    assert!(rows(&store, Table::Events).is_empty());
    let mut found = Vec::new();
    store
        .load(Table::Meta, |_, value| found.push(schema(value)))
        .unwrap();
    assert_eq!(found, [SCHEMA]);
}

#[test]
fn a_store_that_is_cut_short_or_has_a_wrong_bit_is_whole_or_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let mut store = Store::open(&path, 1).unwrap();
    let many: Vec<_> = (0..200)
        .map(|n| row(&format!("k{n}"), Some(&"v".repeat(200))))
        .collect();
    store.commit(&many).unwrap();
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    let cut = (0..24).map(|step| whole.get(..step * whole.len() / 24).unwrap().to_vec());
    // A prime step, so that bits of every kind of page are hit.
    let flipped = (0..48).map(|step| {
        let mut flipped = whole.clone();
        let at = step * 7919 % whole.len();
        *flipped.get_mut(at).unwrap() ^= 1 << (step % 8);
        flipped
    });
    for (number, damaged) in cut.chain(flipped).enumerate() {
        let file = dir.path().join(format!("damaged{number}"));
        std::fs::write(&file, &damaged).unwrap();
        let store = Store::open(&file, 1).unwrap();
        let kept = rows(&store, Table::Modes).len();
        let is_new = damaged.is_empty();
        assert!(
            kept == many.len() || store.set_aside().is_some() || is_new,
            "{number}: {kept} rows"
        );
    }
}

#[test]
fn a_schema_that_is_no_number_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bridge.redb");
    let store = Store::open(&path, 1).unwrap();
    let transaction = store.database.as_ref().unwrap().begin_write().unwrap();
    transaction
        .open_table(Table::Meta.definition())
        .unwrap()
        .insert(SCHEMA_KEY, b"two".as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(store);
    assert!(Store::open(&path, 1).unwrap().set_aside().is_some());
}

#[test]
fn a_place_where_no_file_can_be_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.join("bridge.redb"), dir.path().to_owned()] {
        let error = Store::open(&path, 1).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
