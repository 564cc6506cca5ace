//! With real processes of several users; those need root.

use std::{
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::PermissionsExt, net::UnixDatagram as StdDatagram, process::CommandExt},
    },
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::OFlag,
    sys::socket::{ControlMessage, sendmsg},
};
use outrider_telemetry::Registry;
use tokio::time::timeout;

use super::*;

const POD: &str = "0c9e1a2b-3d4e-5f60-7182-93a4b5c6d7e8";
const OWNER: u32 = 1771;
const PATIENCE: Duration = Duration::from_secs(20);

fn counts() -> Counts {
    Counts::register(&Registry::default()).unwrap()
}

fn dropped(counts: &Counts, why: &str) -> u64 {
    counts.all_dropped().get(why).copied().unwrap_or_default()
}

/// A socket that everyone may write to.
struct Place {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        };
        open(dir.path());
        let path = dir.path().join("ctrl");
        let socket = StdDatagram::bind(&path).unwrap();
        open(&path);
        ask_for_senders(&socket).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { dir, socket: UnixDatagram::from_std(socket).unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ctrl")
    }

    /// A process of that user that sends a datagram for each line it is given. It runs this program by a name that
    /// works where that user may not enter; a copy could not be run while a child of another test still writes it.
    fn teller(&self, uid: u32) -> Teller {
        let child = Command::new("/proc/self/exe")
            .args(["--exact", "mailbox::peer::tests::tells_when_asked", "--nocapture"])
            .env("OUTRIDER_TEST_TELL", self.path())
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Teller(child)
    }

    async fn next(&self) -> Option<Sender> {
        let mut buffer = [0; 16];
        timeout(PATIENCE, receive(&self.socket, &mut buffer))
            .await
            .unwrap()
            .unwrap()
            .1
    }
}

struct Teller(Child);

impl Teller {
    fn tell(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"x\n").unwrap();
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own: what the other processes run.
#[test]
fn tells_when_asked() {
    let Ok(path) = std::env::var("OUTRIDER_TEST_TELL") else { return };
    let socket = StdDatagram::unbound().unwrap();
    for line in std::io::stdin().lines() {
        socket.send_to(line.unwrap().as_bytes(), &path).unwrap();
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let required = std::env::var("OUTRIDER_REQUIRE_NETNS").is_ok();
        assert!(!required, "only root can make processes of other users");
        eprintln!("SKIPPED: only root can make processes of other users");
    }
    root
}

#[tokio::test]
async fn another_user_is_refused_and_the_owner_known() {
    if !is_root() {
        return;
    }
    let (place, counts) = (Place::new(), counts());
    let gate = Gate::new(POD, OWNER, counts.clone());
    let (mut other, mut proxy) = (place.teller(1772), place.teller(OWNER));
    other.tell();
    let sender = place.next().await;
    assert_eq!(sender, Some(Sender { pid: other.pid(), uid: 1772 }));
    assert!(!gate.admits(sender));
    proxy.tell();
    assert!(gate.admits(place.next().await));
    let us = Sender { pid: std::process::id().try_into().unwrap(), uid: 0 };
    assert!(!gate.admits(Some(us)), "root is another user too");
    assert_eq!(dropped(&counts, "foreign-peer"), 2);
}

#[tokio::test]
async fn who_writes_first_is_the_only_one_while_it_lives() {
    if !is_root() {
        return;
    }
    let (place, counts) = (Place::new(), counts());
    let gate = Gate::new(POD, OWNER, counts.clone());
    let (mut proxy, mut other) = (place.teller(OWNER), place.teller(OWNER));
    proxy.tell();
    assert!(gate.admits(place.next().await));
    other.tell();
    assert!(!gate.admits(place.next().await));
    assert_eq!(dropped(&counts, "foreign-peer"), 1);
    proxy.tell();
    let last_words = place.next().await;
    proxy.kill();
    assert!(gate.admits(last_words), "what it said before it died");
    other.tell();
    assert!(gate.admits(place.next().await), "the next life");
    assert!(!gate.0.lock().writer.as_ref().unwrap().start.eq(&0));
    assert_eq!(dropped(&counts, "foreign-peer"), 1);
}

#[tokio::test]
async fn who_is_gone_before_it_is_looked_at_is_not_known() {
    if !is_root() {
        return;
    }
    let (place, counts) = (Place::new(), counts());
    let gate = Gate::new(POD, OWNER, counts.clone());
    let mut proxy = place.teller(OWNER);
    proxy.tell();
    let sender = place.next().await;
    proxy.kill();
    assert!(!gate.admits(sender));
    assert_eq!(dropped(&counts, "unknown-peer"), 1);
}

/// Descriptors that a peer sends along are neither installed nor kept.
#[tokio::test]
async fn descriptors_are_not_taken() {
    let place = Place::new();
    let socket = StdDatagram::unbound().unwrap();
    socket.connect(place.path()).unwrap();
    let (kept, sent) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let parts = [std::io::IoSlice::new(b"x")];
    let fds = [sent.as_raw_fd(); 8];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
    drop(sent);
    assert_eq!(place.next().await, None);
    let mut byte = [0];
    assert_eq!(nix::unistd::read(as_fd(&kept), &mut byte), Ok(0), "the last writer is gone");
}

fn as_fd(fd: &impl AsFd) -> BorrowedFd<'_> {
    fd.as_fd()
}

/// A `/proc` of our own making.
struct Proc(tempfile::TempDir);

impl Proc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn process(&self, name: &str, state: &str, start: u64, cgroup: &str) {
        let dir = self.0.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let zeros = ["0"; 18].join(" ");
        let stat = format!("7 (odd) name)) {state} {zeros} {start} 0 0\n");
        std::fs::write(dir.join("stat"), stat).unwrap();
        std::fs::write(dir.join("cgroup"), cgroup).unwrap();
    }

    fn gate(&self, counts: &Counts) -> Gate {
        Gate::with_proc(POD, OWNER, counts.clone(), self.0.path())
    }
}

fn sender(pid: i32) -> Option<Sender> {
    Some(Sender { pid, uid: OWNER })
}

fn in_pod(uid: &str) -> String {
    format!("0::/kubepods/burstable/pod{uid}/f3d1a6\n")
}

const OTHER: &str = "ffffffff-3d4e-5f60-7182-93a4b5c6d7e8";

#[test]
fn a_process_of_another_pod_is_refused() {
    let (proc, counts) = (Proc::new(), counts());
    proc.process("self", "S", 1, "0::/system.slice/bridge.service");
    proc.process("7", "S", 100, &in_pod(OTHER));
    proc.process("8", "S", 100, &[in_pod(POD), in_pod(OTHER)].concat());
    proc.process("9", "S", 100, &in_pod(POD));
    proc.process("10", "S", 100, "0::/\n");
    for (pid, admitted) in [(7, false), (7, false), (8, false), (9, true), (9, true), (10, true)] {
        assert_eq!(proc.gate(&counts).admits(sender(pid)), admitted, "{pid}");
    }
    let gate = proc.gate(&counts);
    assert!(gate.admits(sender(9)) && !gate.admits(sender(10)) && !gate.admits(sender(7)));
}

#[test]
fn who_shares_our_own_pod_is_told_apart_by_user_and_process() {
    let (proc, counts) = (Proc::new(), counts());
    proc.process("self", "S", 1, &in_pod(OTHER));
    proc.process("7", "S", 100, &in_pod(OTHER));
    assert!(proc.gate(&counts).admits(sender(7)));
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_used_again_is_looked_at_again() {
    let (proc, counts) = (Proc::new(), counts());
    proc.process("self", "S", 1, "0::/");
    proc.process("7", "S", 100, &in_pod(POD));
    let gate = proc.gate(&counts);
    assert!(gate.admits(sender(7)));
    proc.process("7", "S", 200, &in_pod(OTHER));
    assert!(gate.admits(sender(7)), "not looked at twice a second");
    tokio::time::advance(LOOK_AGAIN).await;
    assert!(!gate.admits(sender(7)));
    proc.process("7", "Z", 100, &in_pod(POD));
    proc.process("8", "S", 300, &in_pod(POD));
    assert!(gate.admits(sender(8)), "the dead do not write");
}

#[test]
fn what_the_system_does_not_say_is_not_guessed() {
    let (proc, counts) = (Proc::new(), counts());
    let gate = proc.gate(&counts);
    assert!(!gate.admits(None));
    assert!(!gate.admits(sender(7)), "no such process");
    assert!(gate.admits(sender(0)), "of another pid namespace: its user is all there is");
    let unmapped = Gate::with_proc(POD, OVERFLOW_UID, counts.clone(), proc.0.path());
    assert!(!unmapped.admits(Some(Sender { pid: 7, uid: OVERFLOW_UID })));
    assert_eq!(dropped(&counts, "unknown-peer"), 3);
}

#[test]
fn a_stat_file_is_read_past_any_name() {
    let zeros = ["0"; 18].join(" ");
    assert_eq!(start_of_living(&format!("1 (a) b) S {zeros} 42 0")), Some(42));
    assert_eq!(start_of_living(&format!("1 (a) Z {zeros} 42 0")), None);
    assert_eq!(start_of_living("1 (a) S 0"), None);
    assert_eq!(start_of_living(""), None);
}
