use std::os::unix::fs::symlink;

use super::*;

fn mailbox(root: &Path, uid: &str) -> MailboxDir {
    std::fs::create_dir(root.join(uid)).unwrap();
    MailboxDir::open(root, uid).unwrap()
}

#[test]
fn refuses_a_mailbox_that_is_a_link_or_a_file() {
    let root = tempfile::tempdir().unwrap();
    mailbox(root.path(), "real");
    symlink(root.path().join("real"), root.path().join("link")).unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    assert!(MailboxDir::open(root.path(), "link").is_err());
    assert!(MailboxDir::open(root.path(), "file").is_err());
}

#[tokio::test]
async fn never_connects_through_a_link_to_another_pods_socket() {
    let root = tempfile::tempdir().unwrap();
    let victim = mailbox(root.path(), "victim");
    let hostile = mailbox(root.path(), "hostile");
    let _listening = victim.bind("dp_listen.sock").unwrap();
    let target = root.path().join("victim/dp_listen.sock");
    symlink(target, root.path().join("hostile/dp_listen.sock")).unwrap();
    let client = hostile.bind("dp_client.1").unwrap();
    let error = hostile.connect(&client, "dp_listen.sock").unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    client.send(b"x").await.unwrap_err();
}

#[tokio::test]
async fn binding_replaces_a_link_and_leaves_its_target_alone() {
    let root = tempfile::tempdir().unwrap();
    let mailbox = mailbox(root.path(), "pod");
    let precious = root.path().join("precious");
    std::fs::write(&precious, "kept").unwrap();
    std::fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    symlink(&precious, root.path().join("pod/ctrl_listen.sock")).unwrap();
    let socket = mailbox.bind("ctrl_listen.sock").unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender
        .send_to(b"hello", root.path().join("pod/ctrl_listen.sock"))
        .await
        .unwrap();
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).await.unwrap(), 5);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    assert_eq!(std::fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_bound_socket_may_be_written_by_everyone_who_reaches_it() {
    let root = tempfile::tempdir().unwrap();
    let mailbox = mailbox(root.path(), "pod");
    let _socket = mailbox.bind("ctrl_listen.sock").unwrap();
    let mode = std::fs::metadata(root.path().join("pod/ctrl_listen.sock")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o666);
}

#[tokio::test]
async fn refuses_a_plain_file_and_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let mailbox = mailbox(root.path(), "pod");
    let client = mailbox.bind("dp_client.1").unwrap();
    std::fs::write(root.path().join("pod/dp_listen.sock"), "").unwrap();
    assert!(mailbox.connect(&client, "dp_listen.sock").is_err());
    std::fs::create_dir(root.path().join("pod/ctrl_listen.sock")).unwrap();
    assert!(mailbox.bind("ctrl_listen.sock").is_err());
}

#[tokio::test]
async fn works_below_a_path_too_long_for_a_socket_address() {
    let root = tempfile::tempdir().unwrap();
    let long = root.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let mailbox = mailbox(&long, "pod");
    let server = mailbox.bind("dp_listen.sock").unwrap();
    let client = mailbox.bind("dp_client.1").unwrap();
    mailbox.connect(&client, "dp_listen.sock").unwrap();
    client.send(b"ping").await.unwrap();
    let mut buffer = [0; 16];
    assert_eq!(server.recv(&mut buffer).await.unwrap(), 4);
}

#[tokio::test]
async fn sweeps_old_request_sockets_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let mailbox = mailbox(root.path(), "pod");
    for name in ["dp_client.1", "dp_client.99", "dp_listen.sock", "other"] {
        std::fs::write(root.path().join("pod").join(name), "").unwrap();
    }
    mailbox.sweep_clients().unwrap();
    let mut left: Vec<_> = std::fs::read_dir(root.path().join("pod"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["dp_listen.sock", "other"]);
}
