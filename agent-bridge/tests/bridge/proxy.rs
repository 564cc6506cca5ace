//! A proxy's side of a mailbox: answers requests, remembers them, sends what it is told to.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write as _},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    libc::ucred,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, sendmsg,
    },
    unistd::geteuid,
};

use outrider_wire::{
    DeviceCounter, DeviceStats, KeepAlive, MacStats, Meter, MeterFlags, MeterId, MeterList,
    PARSERS, Reply, SessionCount, SessionList, Stats, StatsWindow,
    ext::{CaptureReply, Status},
    request::{Policy, Request},
};
use parking_lot::Mutex;
use tokio::{
    io::Interest,
    net::UnixDatagram,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Longest wait for a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a proxy does not do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Manner {
    /// It does everything.
    #[default]
    Proper,
    /// It does not know our extensions, like NeuVector's.
    Foreign,
    /// It never answers.
    Silent,
}

/// What it says whatever it should.
#[derive(Debug, Default)]
struct Script {
    /// Datagrams to answer a request of that key with.
    answers: HashMap<&'static str, Vec<Vec<u8>>>,
    /// Which of the next hellos are not answered; those after them are.
    deaf: VecDeque<bool>,
}

/// A fake proxy.
pub(crate) struct Proxy {
    task: JoinHandle<()>,
    heard: Arc<Mutex<Vec<(Instant, Request)>>>,
    sessions: Arc<Mutex<Vec<outrider_wire::Session>>>,
    script: Arc<Mutex<Script>>,
    manner: Arc<Mutex<Manner>>,
    captured: Arc<Mutex<Vec<u8>>>,
    teller: UnixDatagram,
    dir: PathBuf,
}

impl Proxy {
    pub(crate) fn start(mailbox: &Path) -> Self {
        Self::start_as(mailbox, Manner::Proper)
    }

    pub(crate) fn start_as(mailbox: &Path, manner: Manner) -> Self {
        let listen = mailbox.join("dp_listen.sock");
        drop(std::fs::remove_file(&listen));
        let socket = UnixDatagram::bind(&listen).unwrap();
        let owner = mailbox.metadata().unwrap().uid();
        if geteuid().is_root() {
            std::os::unix::fs::chown(listen, Some(owner), Some(owner)).unwrap();
        }
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(Script::default()));
        let manner = Arc::new(Mutex::new(manner));
        let captured = Arc::new(Mutex::new(Vec::new()));
        let serving = Serving {
            socket,
            dir: mailbox.to_owned(),
            manner: Arc::clone(&manner),
            heard: Arc::clone(&heard),
            sessions: Arc::clone(&sessions),
            script: Arc::clone(&script),
            captured: Arc::clone(&captured),
        };
        #[expect(clippy::disallowed_methods, reason = "ended when the proxy is dropped")]
        let task = tokio::spawn(serving.run());
        let teller = UnixDatagram::unbound().unwrap();
        let dir = mailbox.to_owned();
        Self { task, heard, sessions, script, manner, captured, teller, dir }
    }

    /// Sends one notification; the bridge may still be on its way.
    pub(crate) async fn tell(&self, datagram: &[u8]) {
        let to = self.dir.join("ctrl_listen.sock");
        let sent = async {
            while self.teller.send_to(datagram, &to).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, sent).await.unwrap();
    }

    /// Behaves otherwise from now on.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }

    /// Sets what `ctrl_list_session` is answered with.
    pub(crate) fn carries(&self, sessions: Vec<outrider_wire::Session>) {
        *self.sessions.lock() = sessions;
    }

    /// Answers every request of a key with these datagrams.
    pub(crate) fn answers(&self, key: &'static str, datagrams: Vec<Vec<u8>>) {
        self.script.lock().answers.insert(key, datagrams);
    }

    /// Says that of itself from now on.
    pub(crate) fn says(&self, status: &Status) {
        let said = Reply::from(status.clone()).encode().unwrap();
        self.answers("ctrl_outrider_hello", vec![said]);
    }

    /// Has one meter of that pod; without a word, it is pod 2's.
    pub(crate) fn meters(&self, number: u8) {
        let replies = meters(number).into_iter();
        let datagrams = replies.map(|reply| reply.encode().unwrap());
        self.answers("ctrl_list_meter", datagrams.collect());
    }

    /// Does not answer those of the next hellos that are true.
    pub(crate) fn is_deaf_to(&self, hellos: &[bool]) {
        self.script.lock().deaf.extend(hellos);
    }

    /// Sets what it writes when it is to capture packets.
    pub(crate) fn captures(&self, file: Vec<u8>) {
        *self.captured.lock() = file;
    }

    pub(crate) fn heard(&self) -> Vec<Request> {
        self.heard
            .lock()
            .iter()
            .map(|(_, request)| request.clone())
            .collect()
    }

    /// When requests of one key came.
    pub(crate) fn times(&self, key: &str) -> Vec<Instant> {
        let heard = self.heard.lock();
        heard
            .iter()
            .filter(|(_, request)| request.key() == key)
            .map(|(at, _)| *at)
            .collect()
    }

    pub(crate) fn forget_heard(&self) {
        self.heard.lock().clear();
    }

    /// Waits for a request and gives what `find` makes of it.
    pub(crate) async fn hears<T>(&self, find: impl Fn(&Request) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let found = self
                    .heard
                    .lock()
                    .iter()
                    .find_map(|(_, request)| find(request));
                match found {
                    Some(found) => return found,
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .expect("the request never came")
    }

    /// Waits for an acknowledgement.
    pub(crate) async fn hears_ack(&self, seq: u64) {
        self.hears(|request| match request {
            Request::OutriderAck(ack) if ack.seq == seq => Some(()),
            _ => None,
        })
        .await;
    }

    /// The last policy that was pushed.
    pub(crate) fn policy(&self) -> Option<Policy> {
        self.heard()
            .into_iter()
            .rev()
            .find_map(|request| match request {
                Request::CfgPolicy(policy) => Some(policy),
                _ => None,
            })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One answer of each kind, the same every time.
fn answer(request: &Request) -> Vec<Reply> {
    let window = StatsWindow { session_in: 3, byte_in: 5_000_000_000, ..StatsWindow::default() };
    let stats = Stats { session_cur_in: 2, total: window, last: window, ..Stats::default() };
    match request {
        Request::CountSession => {
            vec![SessionCount { total: 7, tcp: 4, udp: 3, ..SessionCount::default() }.into()]
        }
        Request::CounterDevice => vec![
            DeviceCounter {
                rx_packets: 11,
                parser_sessions: [1; PARSERS],
                policy_type1_rules: 5,
                ..DeviceCounter::default()
            }
            .into(),
        ],
        Request::StatsMacs(_) => vec![MacStats(stats).into()],
        Request::StatsDevice => vec![DeviceStats(stats).into()],
        Request::ListMeter => meters(2),
        _ => Vec::new(),
    }
}

/// A list of one meter of that pod.
fn meters(number: u8) -> Vec<Reply> {
    let meter = Meter {
        epmac: crate::world::mac(number),
        count: 9,
        meter_id: MeterId::SYN_FLOOD,
        flags: MeterFlags::IPV4,
        span: 5,
        ..Meter::default()
    };
    MeterList::split(&[meter]).map(Reply::from).collect()
}

struct Serving {
    socket: UnixDatagram,
    dir: PathBuf,
    manner: Arc<Mutex<Manner>>,
    heard: Arc<Mutex<Vec<(Instant, Request)>>>,
    sessions: Arc<Mutex<Vec<outrider_wire::Session>>>,
    script: Arc<Mutex<Script>>,
    captured: Arc<Mutex<Vec<u8>>>,
}

/// A datagram, who sent it, and the pipe that came with it.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<(usize, PathBuf, Option<File>)> {
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(fd, &mut parts, Some(&mut control), flags)?;
    let rights = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::ScmRights(rights) => rights.first().copied(),
        _ => None,
    });
    // Another descriptor of the same pipe, in place of the number.
    let pipe = rights.map(|number| {
        let pipe = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{number}"));
        nix::unistd::close(number).unwrap();
        pipe.unwrap()
    });
    let from = message
        .address
        .and_then(|from| from.path().map(Path::to_owned));
    Ok((message.bytes, from.unwrap_or_default(), pipe))
}

/// Answers as the mailbox's owner, which root may say it is.
fn send(socket: &UnixDatagram, datagram: &[u8], to: &Path) -> io::Result<()> {
    let uid = to.parent().unwrap_or(to).metadata()?.uid();
    let gid = if geteuid().is_root() { uid } else { nix::unistd::getegid().as_raw() };
    let pid = std::process::id().cast_signed();
    let owner = UnixCredentials::from(ucred { pid, uid, gid });
    let control = [ControlMessage::ScmCredentials(&owner)];
    let to = UnixAddr::new(to)?;
    let parts = [IoSlice::new(datagram)];
    sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&to))?;
    Ok(())
}

impl Serving {
    async fn run(self) {
        let mut buffer = vec![0; 8192];
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(&self.socket, &mut buffer))
                .await;
            let (length, from, mut pipe) = received.unwrap();
            let Some(from) = from.file_name() else { continue };
            let answer_to = self.dir.join(from);
            for command in Request::parse_datagram(&buffer[..length]).unwrap() {
                let request = command.request.unwrap();
                for reply in self.datagrams(&request) {
                    let sent = || send(&self.socket, &reply, &answer_to);
                    drop(self.socket.async_io(Interest::WRITABLE, sent).await);
                }
                if let (Request::OutriderCapture(_), Some(mut pipe)) = (&request, pipe.take()) {
                    let _unread = pipe.write_all(&self.captured.lock());
                }
                self.heard.lock().push((Instant::now(), request));
            }
        }
    }

    fn datagrams(&self, request: &Request) -> Vec<Vec<u8>> {
        let mut script = self.script.lock();
        let is_hello = matches!(request, Request::OutriderHello(_));
        if is_hello && script.deaf.pop_front() == Some(true) {
            return Vec::new();
        }
        if let Some(scripted) = script.answers.get(request.key()) {
            return scripted.clone();
        }
        let replies = self.replies(request);
        replies
            .iter()
            .map(|reply| reply.encode().unwrap())
            .collect()
    }

    fn replies(&self, request: &Request) -> Vec<Reply> {
        let manner = *self.manner.lock();
        match request {
            _ if manner == Manner::Silent => Vec::new(),
            Request::KeepAlive(asked) => vec![KeepAlive { seq_num: asked.seq_num }.into()],
            Request::OutriderHello(_) if manner == Manner::Proper => {
                vec![Status { version: "0.1.0".into(), ..Status::default() }.into()]
            }
            Request::ListSession => SessionList::split(&self.sessions.lock())
                .map(Reply::from)
                .collect(),
            Request::OutriderCapture(order) => {
                vec![CaptureReply::new(order.id, String::new()).into()]
            }
            other => answer(other),
        }
    }
}
