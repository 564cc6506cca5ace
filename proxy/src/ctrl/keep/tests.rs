use std::os::unix::fs::symlink;

use super::*;

fn datagrams() -> Vec<Vec<u8>> {
    vec![
        br#"{"ctrl_strict_group_mode":{"strict_group_mode":true}}"#.to_vec(),
        br#"{"ctrl_cfg_del_fqdn":{"names":["a.test"]}}"#.to_vec(),
    ]
}

#[test]
fn what_is_saved_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    assert!(load(&path).unwrap().is_none());
    save(&path, datagrams()).unwrap();
    let keys: Vec<_> = load(&path)
        .unwrap()
        .unwrap()
        .iter()
        .map(Request::key)
        .collect();
    assert_eq!(keys, ["ctrl_strict_group_mode", "ctrl_cfg_del_fqdn"]);
    save(&path, Vec::new()).unwrap();
    assert_eq!(load(&path).unwrap(), Some(Vec::new()));
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    save(&path, datagrams()).unwrap();
    symlink("/dev/full", path.with_extension("json.new")).unwrap();
    assert!(save(&path, Vec::new()).is_err());
    assert_eq!(load(&path).unwrap().unwrap().len(), 2);
    save(&path, Vec::new()).unwrap();
}

#[test]
fn a_missing_directory_is_an_error_and_no_panic() {
    assert!(save(Path::new("/nonexistent/policy.json"), datagrams()).is_err());
}

#[test]
fn a_damaged_file_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    save(&path, datagrams()).unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(load(&path).is_err(), "cut at {cut}");
    }
    for strange in [
        r#"{"format":2,"requests":[]}"#,
        r#"{"format":1,"requests":[{"ctrl_cfg_set_fqdn":{}}]}"#,
        r#"{"format":1,"requests":[7]}"#,
    ] {
        fs::write(&path, strange).unwrap();
        assert!(load(&path).is_err(), "{strange}");
    }
}

#[test]
fn a_file_beyond_all_measure_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    fs::File::create(&path)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("too long"));
}
