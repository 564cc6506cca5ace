use std::os::unix::fs::symlink;

use super::*;

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn watcher(&self) -> Watcher {
        Watcher::new(self.0.path().to_owned())
    }

    fn describe(&self, uid: &str, text: &str) {
        std::fs::write(self.0.path().join(file(uid)), text).unwrap();
    }

    fn pod(&self, uid: &str, mac: &str) {
        std::fs::create_dir_all(self.0.path().join(uid)).unwrap();
        self.describe(uid, &text(uid, mac));
    }
}

fn text(uid: &str, mac: &str) -> String {
    format!(
        r#"{{"uid":"{uid}","name":"{uid}-0","namespace":"default","service":"{uid}",
            "addresses":["10.0.0.2","::ffff:10.0.0.3"],"mac":"{mac}","labels":{{}}}}"#
    )
}

fn only(poll: &Poll) -> Workload {
    match poll.changes.as_slice() {
        [Change::Present(workload)] => workload.clone(),
        other => panic!("{other:?} {:?}", poll.refused),
    }
}

#[test]
fn a_workload_appears_once_and_is_gone_with_its_file() {
    let root = Root::new();
    let mut watcher = root.watcher();
    root.pod("web", "0a:00:00:00:00:01");
    let workload = only(&watcher.poll());
    assert_eq!(workload.name, "default/web-0");
    assert_eq!((workload.namespace.as_str(), workload.service.as_str()), ("default", "web"));
    assert_eq!(workload.addresses[1].to_string(), "10.0.0.3");
    assert_eq!(watcher.poll(), Poll::default());
    std::fs::remove_file(root.0.path().join("web.json")).unwrap();
    assert_eq!(watcher.poll().changes, [Change::Gone("web".into())]);
}

#[test]
fn a_changed_file_is_a_change() {
    let root = Root::new();
    let mut watcher = root.watcher();
    root.pod("web", "0a:00:00:00:00:01");
    only(&watcher.poll());
    root.describe("web", &text("web", "0a:00:00:00:00:0002"));
    assert_eq!(watcher.poll().changes, [Change::Gone("web".into())]);
    root.describe("web", &text("web", "0a:00:00:00:00:02"));
    assert_eq!(only(&watcher.poll()).mac.to_string(), "0a:00:00:00:00:02");
}

#[test]
fn refuses_what_is_not_a_workload_and_says_why() {
    let root = Root::new();
    root.describe("alone", &text("alone", "0a:00:00:00:00:01"));
    root.pod("liar", "0a:00:00:00:00:02");
    root.describe("liar", &text("other", "0a:00:00:00:00:02"));
    root.pod("half", "0a:00:00:00:00:03");
    root.describe("half", "{\"uid\":");
    root.pod("link", "0a:00:00:00:00:04");
    std::fs::remove_file(root.0.path().join("link.json")).unwrap();
    symlink(root.0.path().join("liar.json"), root.0.path().join("link.json")).unwrap();
    root.describe("no space", "{}");
    let poll = root.watcher().poll();
    assert!(poll.changes.is_empty(), "{poll:?}");
    let reasons: Vec<_> = poll.refused.iter().map(|one| one.why.label()).collect();
    let file = "workload-file";
    assert_eq!(reasons, ["name", "no-directory", file, file, file], "{poll:?}");
}

#[test]
fn a_mac_belongs_to_one_workload() {
    let root = Root::new();
    root.pod("a", "0a:00:00:00:00:01");
    root.pod("b", "0a:00:00:00:00:01");
    root.pod("c", "0a:00:00:00:00:01");
    let poll = root.watcher().poll();
    assert_eq!(only(&poll).uid, "a");
    let texts: Vec<_> = poll.refused.iter().map(|one| one.text.as_str()).collect();
    assert_eq!(texts, ["b: has the MAC of a", "c: has the MAC of a"]);
}

#[test]
fn a_workload_file_has_a_largest_size_and_a_largest_number_of_addresses() {
    let root = Root::new();
    root.pod("big", "0a:00:00:00:00:01");
    let padding = " ".repeat(usize::try_from(MAX_FILE).unwrap());
    root.describe("big", &(text("big", "0a:00:00:00:00:01") + &padding));
    assert!(
        root.watcher().poll().refused[0]
            .text
            .contains("larger than")
    );
    let many = vec!["\"10.0.0.1\""; MAX_ADDRESSES + 1].join(",");
    let crowded = text("big", "0a:00:00:00:00:01").replace("\"10.0.0.2\"", &many);
    root.describe("big", &crowded);
    assert!(root.watcher().poll().refused[0].text.contains("addresses"));
}

#[test]
fn serves_a_bounded_number_of_mailboxes() {
    let root = Root::new();
    for number in 0..=MAX_MAILBOXES {
        root.describe(&format!("pod{number}"), "{}");
    }
    let mut refused = Vec::new();
    assert_eq!(root.watcher().uids(&mut refused, true).len(), MAX_MAILBOXES);
    assert_eq!(refused.len(), 1);
}

#[test]
fn a_root_that_does_not_exist_is_said_and_survived() {
    let mut watcher = Watcher::new("/nonexistent/pods".into());
    assert_eq!(watcher.poll().refused.len(), 1);
}
