use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const UID: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9aa";

struct World {
    dir: tempfile::TempDir,
    ground: Ground,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ground = Ground::new(dir.path().join("pods"));
        ground.lay().unwrap();
        Self { dir, ground }
    }

    fn mailbox(&self) -> PathBuf {
        self.ground.root.join(UID)
    }

    fn is_given(&self) -> bool {
        let found = self.mailbox().symlink_metadata().unwrap();
        found.is_dir()
            && found.uid() == self.ground.owner
            && found.gid() == self.ground.owner
            && found.mode() & 0o7777 == 0o700
    }
}

#[test]
fn a_directory_is_made_before_the_kubelet_looks_for_it() {
    let world = World::new();
    world.ground.prepare(UID).unwrap();
    assert!(world.is_given());
    world.ground.prepare(UID).unwrap();
    assert!(world.is_given());
}

#[test]
fn the_kubelets_directory_is_given_to_the_proxy() {
    let world = World::new();
    std::fs::create_dir(world.mailbox()).unwrap();
    std::fs::set_permissions(world.mailbox(), std::fs::Permissions::from_mode(0o755)).unwrap();
    world.ground.prepare(UID).unwrap();
    assert!(world.is_given());
}

#[test]
fn a_link_a_file_and_somebody_elses_directory_are_refused() {
    let world = World::new();
    let elsewhere = world.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let before = elsewhere.metadata().unwrap();
    symlink(&elsewhere, world.mailbox()).unwrap();
    assert!(matches!(world.ground.prepare(UID), Err(GroundError::Io(_))));
    let after = elsewhere.metadata().unwrap();
    assert_eq!(
        (before.mode(), before.uid()),
        (after.mode(), after.uid()),
        "the target is untouched"
    );
    std::fs::remove_file(world.mailbox()).unwrap();
    std::fs::write(world.mailbox(), "").unwrap();
    assert!(matches!(world.ground.prepare(UID), Err(GroundError::Io(_))));
    std::fs::remove_file(world.mailbox()).unwrap();
    if geteuid().is_root() {
        std::fs::create_dir(world.mailbox()).unwrap();
        std::os::unix::fs::chown(world.mailbox(), Some(1000), Some(1000)).unwrap();
        assert!(matches!(world.ground.prepare(UID), Err(GroundError::Foreign(1000))));
    }
}

#[test]
fn what_a_proxy_leaves_goes_with_its_directory() {
    let world = World::new();
    world.ground.prepare(UID).unwrap();
    for name in ["ctrl_listen.sock", "dp_listen.sock", "dp_client.17", "policy.json"] {
        std::fs::write(world.mailbox().join(name), "").unwrap();
    }
    assert_eq!(world.ground.uids(), [UID.to_owned()].into());
    world.ground.remove(UID).unwrap();
    assert!(world.mailbox().symlink_metadata().is_err());
    world.ground.remove(UID).unwrap();
}

#[test]
fn a_directory_with_anything_else_stays_as_it_is() {
    let world = World::new();
    world.ground.prepare(UID).unwrap();
    std::fs::write(world.mailbox().join("policy.json"), "").unwrap();
    let odd = world.mailbox().join("odd");
    std::fs::create_dir(&odd).unwrap();
    assert!(matches!(world.ground.remove(UID), Err(GroundError::Holds(_))));
    std::fs::remove_dir(&odd).unwrap();
    for number in 0..MAX_ENTRIES {
        std::fs::write(world.mailbox().join(format!("dp_client.{number}")), "").unwrap();
    }
    assert!(matches!(world.ground.remove(UID), Err(GroundError::Holds(_))), "too many to be ours");
    assert!(world.mailbox().join("policy.json").exists());
}

#[test]
fn a_directory_in_which_a_proxy_listens_stays() {
    let world = World::new();
    world.ground.prepare(UID).unwrap();
    let listening = UnixDatagram::bind(world.mailbox().join(names::DP_LISTEN)).unwrap();
    assert!(matches!(world.ground.remove(UID), Err(GroundError::Alive)));
    drop(listening);
    world.ground.remove(UID).unwrap();
}

#[test]
fn a_link_in_place_of_a_directory_is_not_followed_when_it_is_removed() {
    let world = World::new();
    let elsewhere = world.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("policy.json"), "").unwrap();
    symlink(&elsewhere, world.mailbox()).unwrap();
    assert!(world.ground.remove(UID).is_err());
    assert!(elsewhere.join("policy.json").exists());
    assert!(world.ground.uids().is_empty());
}

#[test]
fn only_what_looks_like_a_uid_is_a_pods() {
    assert!(is_pod_uid(UID));
    assert!(is_pod_uid("d41d8cd98f00b204e9800998ecf8427e"), "a static pod");
    for name in [
        "",
        "web",
        "..",
        "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9a",
        "6b1f8a52x0b0e-4d62-9c53-5d2f3ad0c9aa",
    ] {
        assert!(!is_pod_uid(name), "{name}");
    }
}
