//! Who writes into a mailbox: known by what the kernel says of each datagram's sender, never by
//! what the datagram says.
//!
//! The first process that writes owns the mailbox for as long as it lives. A process is held by a
//! descriptor of its `/proc/<pid>` directory, which stands for that process and no later one of
//! the same number: what is read through it is read of one process, or not at all. So the number
//! that came with a datagram is looked up once a life, and looked after once a second.

mod cgroup;

use std::{
    fs::File,
    io::{self, IoSliceMut, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{
    cmsg_space,
    fcntl::{OFlag, openat},
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt,
            sockopt::PassCred,
        },
        stat::Mode,
    },
};
use parking_lot::Mutex;
use tokio::{io::Interest, net::UnixDatagram, time::Instant};

use super::load::{self, Usage};
use crate::counts::{Counts, Dropped};
use cgroup::PodUid;

/// How long a process that was looked at is taken to be the same one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes read of one file of `/proc`.
const MAX_PROC_FILE: u64 = 64 * 1024;
/// The uid that stands for all that our user namespace has no number for, unless the system says
/// another.
const OVERFLOW_UID: u32 = 65_534;

/// What the kernel says of a datagram's sender, in our namespaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sender {
    /// Its process; 0 if our pid namespace has no number for it.
    pub pid: i32,
    /// Its user; the overflow uid if our user namespace has no number for it.
    pub uid: u32,
}

/// Has the kernel say who sent each datagram that comes from now on.
///
/// # Errors
/// What the system says.
pub fn ask_for_senders(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, PassCred, &true)?)
}

/// Receives one datagram and who sent it; `None` if the kernel did not say.
///
/// There is room for the sender's credentials and for nothing else: descriptors that a peer sends
/// along are closed by the kernel, and such a datagram has no known sender.
///
/// # Errors
/// What the system says.
pub async fn receive(
    socket: &UnixDatagram,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Sender>)> {
    socket
        .async_io(Interest::READABLE, || receive_now(socket, buffer))
        .await
}

/// Receives one datagram that is there already.
///
/// # Errors
/// `WouldBlock` if none is, or what else the system says.
pub fn receive_now(
    socket: &UnixDatagram,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Sender>)> {
    let mut control = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let sender = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(who) => {
                Some(Sender { pid: who.pid(), uid: who.uid() })
            }
            _ => None,
        })
    });
    Ok((message.bytes, sender))
}

/// Decides whose datagrams a mailbox takes; shared by its reader and its link.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    pod: Option<PodUid>,
    /// The pod that we are in ourselves: who shares it with us is told apart otherwise.
    beside: Option<PodUid>,
    owner: u32,
    overflow: u32,
    proc: PathBuf,
    writer: Option<Process>,
    /// Who was refused last, and when.
    refused: Option<(i32, Instant, Dropped)>,
    counts: Counts,
}

impl Gate {
    /// A gate for the mailbox `uid`, whose directory belongs to `owner`.
    #[must_use]
    pub fn new(uid: &str, owner: u32, counts: Counts) -> Self {
        Self::with_proc(uid, owner, counts, Path::new("/proc"))
    }

    fn with_proc(uid: &str, owner: u32, counts: Counts, proc: &Path) -> Self {
        let overflow = std::fs::read_to_string("/proc/sys/fs/overflowuid").ok();
        let beside = Process::look(proc, "self")
            .ok()
            .and_then(|own| cgroup::pod_uid(&own.read("cgroup").ok()?).ok()?);
        let state = State {
            pod: PodUid::parse(uid),
            beside,
            owner,
            overflow: overflow
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(OVERFLOW_UID),
            proc: proc.to_owned(),
            writer: None,
            refused: None,
            counts,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether a datagram of that sender is taken; one that is not is counted.
    #[must_use]
    pub fn admits(&self, sender: Option<Sender>) -> bool {
        let mut state = self.0.lock();
        let Err(why) = state.judge(sender, Instant::now()) else { return true };
        state.counts.dropped(why, 1);
        false
    }
}

impl Gate {
    /// What the process that writes has used so far, if it is seen.
    pub(super) fn usage(&self) -> Option<Usage> {
        let state = self.0.lock();
        let writer = state.writer.as_ref().filter(|writer| writer.lives())?;
        let (stat, status) = (writer.read("stat").ok()?, writer.read("status").ok()?);
        load::usage(writer.start, &stat, &status)
    }
}

impl State {
    fn judge(&mut self, sender: Option<Sender>, now: Instant) -> Result<(), Dropped> {
        let sender = sender.ok_or(Dropped::UnknownPeer)?;
        if sender.uid != self.owner {
            return Err(Dropped::ForeignPeer);
        }
        if self.owner == self.overflow {
            return Err(Dropped::UnknownPeer);
        }
        if let Some(writer) = &mut self.writer {
            if writer.pid != sender.pid {
                if writer.lives() {
                    return Err(Dropped::ForeignPeer);
                }
            } else if writer.is_same(now) || Process::look_at(&self.proc, sender.pid).is_err() {
                // It lives, or these are its last words: nobody else has its number.
                return Ok(());
            }
        }
        self.claim(sender, now)
    }

    /// Makes the sender the one who writes, if nothing speaks against it.
    fn claim(&mut self, sender: Sender, now: Instant) -> Result<(), Dropped> {
        if sender.pid == 0 {
            // Our pid namespace does not show it: its user is all there is to know.
            return Ok(());
        }
        if let Some((pid, at, why)) = self.refused
            && pid == sender.pid
            && now < at + LOOK_AGAIN
        {
            return Err(why);
        }
        match self.look(sender.pid, now) {
            Ok(process) => {
                tracing::info!(pid = process.pid, start = process.start, "who writes is known");
                self.writer = Some(process);
                Ok(())
            }
            Err(why) => {
                tracing::info!(pid = sender.pid, reason = why.label(), "a writer is refused");
                self.refused = Some((sender.pid, now, why));
                Err(why)
            }
        }
    }

    fn look(&self, pid: i32, now: Instant) -> Result<Process, Dropped> {
        let unknown = |error: io::Error| {
            tracing::debug!(%error, pid, "a writer's process cannot be looked at");
            Dropped::UnknownPeer
        };
        let process = Process::look_at(&self.proc, pid).map_err(unknown)?;
        let text = process.read("cgroup").map_err(unknown)?;
        if !process.lives() {
            return Err(Dropped::UnknownPeer);
        }
        let pod = cgroup::pod_uid(&text).map_err(|_several| Dropped::ForeignPeer)?;
        if pod.is_none() || pod == self.beside || pod == self.pod {
            Ok(Process { looked: now, ..process })
        } else {
            Err(Dropped::ForeignPeer)
        }
    }
}

/// One process, and no later one of the same number.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// When it started, in ticks since boot.
    start: u64,
    /// Its directory in `/proc`.
    dir: OwnedFd,
    looked: Instant,
}

impl Process {
    fn look_at(proc: &Path, pid: i32) -> io::Result<Self> {
        Ok(Self { pid, ..Self::look(proc, &pid.to_string())? })
    }

    fn look(proc: &Path, name: &str) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(&proc.join(name), flags, Mode::empty())?;
        let mut process = Self { pid: 0, start: 0, dir, looked: Instant::now() };
        process.start = process
            .started()?
            .ok_or_else(|| io::Error::other("the process is dead"))?;
        Ok(process)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let file = openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = Vec::new();
        File::from(file)
            .take(MAX_PROC_FILE)
            .read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn started(&self) -> io::Result<Option<u64>> {
        self.read("stat").map(|text| start_of_living(&text))
    }

    /// Whether it still lives, and is the one it was.
    fn lives(&self) -> bool {
        matches!(self.started(), Ok(Some(start)) if start == self.start)
    }

    /// The same, but looked up once a second only.
    fn is_same(&mut self, now: Instant) -> bool {
        if now < self.looked + LOOK_AGAIN {
            return true;
        }
        let lives = self.lives();
        if lives {
            self.looked = now;
        }
        lives
    }
}

/// The start time in a `stat` file; `None` for a process that is dead and not yet buried.
fn start_of_living(stat: &str) -> Option<u64> {
    // The name in brackets may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(start)
}

#[cfg(test)]
mod tests;
