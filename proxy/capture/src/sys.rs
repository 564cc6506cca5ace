//! What the kernel offers only through raw pointers: packet socket options and the mapped ring. The
//! only `unsafe` of the project; everything it hands out is safe to use in any order.
#![expect(unsafe_code, reason = "a ring shared with the kernel and options that no crate wraps")]

use std::{
    ffi::{CString, OsString},
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use socket2::Socket;
use tokio::io::{Interest, unix::AsyncFd};

/// What a tap waits for: frames, or word that its interface is down.
pub(crate) const FRAMES_OR_ERROR: Interest = Interest::READABLE.add(Interest::ERROR);

/// Lets a socket be awaited. Must be called inside a tokio runtime.
pub(crate) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor and keeps it open, the same one, until it is dropped,
    // which `AsyncFd` does after it has stopped watching; nobody takes it out while it is watched.
    let watched = unsafe { AsyncFd::register_with_interest(socket, FRAMES_OR_ERROR) };
    watched.map_err(Into::into)
}

/// A datagram of a unix socket.
#[derive(Debug)]
pub struct Letter {
    /// Its bytes; the buffer's, if it is longer than that.
    pub length: usize,
    /// The path that its sender is bound to.
    pub from: Option<PathBuf>,
    /// The first descriptor that came with it; others are closed.
    pub descriptor: Option<OwnedFd>,
}

/// Receives a datagram without waiting, and the descriptor that comes with it.
///
/// # Errors
/// What the system says, `WouldBlock` if there is none.
pub fn receive_letter(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Letter> {
    let mut address = libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] };
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = libc::msghdr {
        msg_name: ptr::from_mut(&mut address).cast(),
        msg_namelen: length_of::<libc::sockaddr_un>(),
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&control),
        msg_flags: 0,
    };
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every pointer in `message` leads to live memory of ours of the length beside it, which
    // nobody else uses meanwhile and which may hold any bytes.
    let length = unsafe { libc::recvmsg(fd, &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_negative| io::Error::last_os_error())?;
    let control: Vec<u8> = control
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take(message.msg_controllen)
        .collect();
    let received = descriptors(&control).into_iter().map(|fd| {
        // SAFETY: the kernel has just made this descriptor for us: nobody else has it, and each comes
        // once.
        unsafe { OwnedFd::from_raw_fd(fd) }
    });
    let received: Vec<_> = received.collect();
    let named = (message.msg_namelen as usize).saturating_sub(size_of::<libc::sa_family_t>());
    let path = address
        .sun_path
        .iter()
        .take(named)
        .map(|byte| byte.cast_unsigned());
    let path: Vec<u8> = path.take_while(|byte| *byte != 0).collect();
    let from = (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path)));
    Ok(Letter { length, from, descriptor: received.into_iter().next() })
}

/// The descriptors among what the kernel put beside a message.
fn descriptors(mut control: &[u8]) -> Vec<RawFd> {
    let mut found = Vec::new();
    while let Some((length, rest)) = control.split_first_chunk::<8>() {
        let length = usize::from_ne_bytes(*length);
        let body = control.get(CONTROL_HEADER..length).unwrap_or_default();
        let (level, kind) = (rest.first_chunk::<4>(), rest.get(4..8));
        let is_rights = level == Some(&libc::SOL_SOCKET.to_ne_bytes())
            && kind == Some(&libc::SCM_RIGHTS.to_ne_bytes());
        if is_rights {
            let (numbers, _) = body.as_chunks::<4>();
            found.extend(numbers.iter().map(|number| RawFd::from_ne_bytes(*number)));
        }
        control = control
            .get(length.max(CONTROL_HEADER).next_multiple_of(8)..)
            .unwrap_or_default();
    }
    found
}

/// Number of the interface with that name in this thread's network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: `name` is a live string that ends in a zero byte, which the call only reads.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index) }
}

/// Receives every protocol on that interface, 0 being all of them. Nothing arrives before.
pub(crate) fn bind_packets(socket: &Socket, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: AF_PACKET,
        sll_protocol: ALL_PROTOCOLS.to_be(),
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = length_of::<libc::sockaddr_ll>();
    let address = ptr::from_ref(&address).cast();
    // SAFETY: `address` points to a live `sockaddr_ll` of `length` bytes, which the call only reads.
    check(unsafe { libc::bind(socket.as_raw_fd(), address, length) })
}

/// Joins a group of sockets that share an interface's frames by flow.
pub(crate) fn join_fanout(socket: &Socket, group: u16) -> io::Result<()> {
    let value = u32::from(group) | (libc::PACKET_FANOUT_HASH | DEFRAGMENT) << 16;
    set(socket, libc::PACKET_FANOUT, &value)
}

/// Receives what the kernel tells that group of a netlink family.
pub(crate) fn join_netlink(socket: &Socket, group: u32) -> io::Result<()> {
    set_at(socket, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
}

/// Frames that passed the filter, frames of those that found no room, and times the ring was full,
/// since the last call.
pub(crate) fn take_statistics(socket: &Socket) -> io::Result<[u32; 3]> {
    let mut value = [0_u32; 3];
    let mut length = length_of::<[u32; 3]>();
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    let into = ptr::from_mut(&mut value).cast();
    // SAFETY: `into` points to `length` live bytes of integers, which the call may overwrite.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, into, &raw mut length) })?;
    Ok(value)
}

/// Hands frames out, and takes them, with what the hardware was to do about them in front. Must be
/// said before a ring is made.
pub(crate) fn with_offloads(socket: &Socket) -> io::Result<()> {
    set(socket, libc::PACKET_VNET_HDR, &ON)
}

/// Leaves out frames that this machine sends.
pub(crate) fn only_incoming(socket: &Socket) -> io::Result<()> {
    set(socket, libc::PACKET_IGNORE_OUTGOING, &ON)
}

/// Puts a frame that does not fit its slot into the socket's queue as well, whole.
pub(crate) fn queue_large(socket: &Socket) -> io::Result<()> {
    set(socket, libc::PACKET_COPY_THRESH, &ON)
}

/// Lets in frames for the addresses of other machines, until the socket is closed.
pub(crate) fn promiscuous(socket: &Socket, interface: u32) -> io::Result<()> {
    let wish = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        mr_type: PROMISCUOUS,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::PACKET_ADD_MEMBERSHIP, &wish)
}

/// A ring of blocks that the kernel fills and we empty. A block belongs to one of the two at any time.
#[derive(Debug)]
pub(crate) struct Ring {
    base: NonNull<u8>,
    block: usize,
    blocks: usize,
    /// Where a block says whose it is.
    status_at: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Ring` alone has its address.
unsafe impl Send for Ring {}
// SAFETY: through a shared reference nothing can be read or written.
unsafe impl Sync for Ring {}

impl Ring {
    /// Makes the ring of a packet socket and maps it. A block that is not full is handed over after
    /// `timeout_ms`; `reserve` bytes stay free before each frame.
    pub(crate) fn map(
        socket: &Socket,
        (block, blocks): (u32, u32),
        timeout_ms: u32,
        reserve: u32,
    ) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set(socket, libc::PACKET_VERSION, &version)?;
        set(socket, libc::PACKET_RESERVE, &reserve)?;
        let request = libc::tpacket_req3 {
            tp_block_size: block,
            tp_block_nr: blocks,
            tp_frame_size: FRAME_UNIT,
            tp_frame_nr: block / FRAME_UNIT * blocks,
            tp_retire_blk_tov: timeout_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(socket, libc::PACKET_RX_RING, &request)?;
        Self::at(socket, (block, blocks), 8)
    }

    /// Makes the ring of slots of a packet socket and maps it: each slot is a block with one frame,
    /// which is handed over at once. The number of slots is a multiple of 32; `reserve` bytes stay
    /// free before each frame.
    pub(crate) fn slots(socket: &Socket, slots: u32, reserve: u32) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(socket, libc::PACKET_VERSION, &version)?;
        set(socket, libc::PACKET_RESERVE, &reserve)?;
        let request = libc::tpacket_req {
            tp_block_size: FRAME_UNIT * SLOTS_OF_ALLOCATION,
            tp_block_nr: slots / SLOTS_OF_ALLOCATION,
            tp_frame_size: FRAME_UNIT,
            tp_frame_nr: slots / SLOTS_OF_ALLOCATION * SLOTS_OF_ALLOCATION,
        };
        set(socket, libc::PACKET_RX_RING, &request)?;
        Self::at(socket, (FRAME_UNIT, request.tp_frame_nr), 0)
    }

    fn at(socket: &Socket, (block, blocks): (u32, u32), status_at: usize) -> io::Result<Self> {
        let (block, blocks) = (block as usize, blocks as usize);
        let length = block * blocks;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = socket.as_raw_fd();
        // SAFETY: no address is asked for, so the call cannot replace a mapping that is in use.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, block, blocks, status_at })
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The block, if the kernel has filled it and handed it over.
    pub(crate) fn block(&mut self, index: usize) -> Option<&mut [u8]> {
        let ours = self.status(index).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0;
        if !ours {
            return None;
        }
        let start = self.start(index).as_ptr();
        // SAFETY: the block lies inside the mapping, which lives as long as `self`. While its status
        // says that it is ours the kernel writes nothing to it, and the borrow of `self` keeps us
        // from a second reference and from `release`.
        Some(unsafe { std::slice::from_raw_parts_mut(start, self.block) })
    }

    /// Gives the block back to the kernel.
    pub(crate) fn release(&mut self, index: usize) {
        self.status(index)
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    fn start(&self, index: usize) -> NonNull<u8> {
        let offset = index % self.blocks * self.block;
        // SAFETY: `offset` is less than the length of the mapping.
        unsafe { self.base.add(offset) }
    }

    fn status(&mut self, index: usize) -> &AtomicU32 {
        let start = self.start(index);
        // SAFETY: a block has 2048 bytes at least, so the status word lies inside the mapping.
        let status = unsafe { start.byte_add(self.status_at) };
        // SAFETY: the word is aligned (blocks begin on multiples of 2048), lives as long as `self`, and no slice
        // of the block exists while `self` is borrowed here; the kernel's accesses are atomic too.
        unsafe { AtomicU32::from_ptr(status.as_ptr().cast()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let length = self.block * self.blocks;
        // SAFETY: the mapping is ours alone and every reference into it borrowed `self`.
        let unmapped = check(unsafe { libc::munmap(self.base.as_ptr().cast(), length) });
        debug_assert!(unmapped.is_ok(), "a mapping of our own making");
    }
}

/// Plain data that the kernel may read every byte of.
trait Plain {}
impl Plain for u32 {}
impl Plain for libc::c_int {}
impl Plain for libc::tpacket_req {}
impl Plain for libc::tpacket_req3 {}
impl Plain for libc::packet_mreq {}

fn set<T: Plain>(socket: &Socket, name: libc::c_int, value: &T) -> io::Result<()> {
    set_at(socket, libc::SOL_PACKET, name, value)
}

fn set_at<T: Plain>(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let (fd, length) = (socket.as_raw_fd(), length_of::<T>());
    let value = ptr::from_ref(value).cast();
    // SAFETY: `value` points to `length` live, initialised bytes, which the call only reads.
    check(unsafe { libc::setsockopt(fd, level, name, value, length) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[expect(clippy::cast_possible_truncation, reason = "1")]
const PROMISCUOUS: u16 = libc::PACKET_MR_PROMISC as u16;
#[expect(clippy::cast_possible_truncation, reason = "17 and 3")]
const AF_PACKET: u16 = libc::AF_PACKET as u16;
#[expect(clippy::cast_possible_truncation, reason = "17 and 3")]
const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;
/// Fragments are put together before the hash is taken, so that a flow stays with one socket.
const DEFRAGMENT: u32 = libc::PACKET_FANOUT_FLAG_DEFRAG;
/// Frames take what they need; the kernel only wants the size to divide a block.
const FRAME_UNIT: u32 = 2048;
/// Slots that the kernel allocates together: 64 KiB.
const SLOTS_OF_ALLOCATION: u32 = 32;
const ON: libc::c_int = 1;
/// Room for what comes beside a message: as many descriptors as the kernel lets through (253), so that
/// none is left open that we were not told of.
const CONTROL_WORDS: usize = (CONTROL_HEADER + 253 * 4).div_ceil(8);
/// Length, level and kind.
const CONTROL_HEADER: usize = 16;
