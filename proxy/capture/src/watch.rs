//! The headers of some TCP connections' segments, as soon as they pass.

use std::io::{self, Read as _};

use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{CaptureError, sys};

/// Shows the headers of the segments of a few connections, each as soon as it passes: a tap hands a
/// block over only when it is full or some milliseconds old, when a busy connection is already
/// somewhere else. Needs `NET_RAW`.
#[derive(Debug)]
pub struct Watch(AsyncFd<Socket>);

/// Connections that can be watched at once: the kernel compares each TCP segment of the pod with each.
pub const MAX_WATCHED: usize = 256;
/// Bytes of a packet that are shown: both headers with all the options they can have.
pub const WATCHED_BYTES: usize = SHOWN as usize;

impl Watch {
    /// Opens the socket; it shows nothing yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is no capability, or no descriptor left.
    pub fn open() -> Result<Self, CaptureError> {
        let missing = |source| CaptureError::net_raw("packet socket", source, failed("open"));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None).map_err(missing)?;
        socket.set_nonblocking(true).map_err(failed("set up"))?;
        socket
            .attach_filter(&program(&[]))
            .map_err(failed("filter"))?;
        sys::bind_packets(&socket, 0).map_err(failed("bind"))?;
        sys::watch(socket).map(Self).map_err(failed("watch"))
    }

    /// Watches the connections with these pairs of ports, in either order, and no others.
    ///
    /// # Errors
    /// There are too many, or the kernel refuses the filter.
    pub fn set(&self, ports: &[(u16, u16)]) -> Result<(), CaptureError> {
        if ports.len() > MAX_WATCHED {
            return Err(CaptureError::Setting("256 connections at most can be watched at once"));
        }
        let attached = self.0.get_ref().attach_filter(&program(ports));
        attached.map_err(failed("filter"))
    }

    /// Waits until a segment has passed. Dropping the future loses none.
    ///
    /// # Errors
    /// The runtime is going down.
    pub async fn ready(&self) -> Result<(), CaptureError> {
        self.0.readable().await.map(drop).map_err(failed("wait"))
    }

    /// The beginning of the next packet, its IP header first. `None`: there is none at the moment.
    pub fn next<'a>(&self, buffer: &'a mut [u8; WATCHED_BYTES]) -> Option<&'a [u8]> {
        let read = self
            .0
            .try_io(Interest::READABLE, |mut socket| socket.read(buffer));
        // Any error but "not now" says that an interface went down; the others are still there.
        read.ok().and_then(|length| buffer.get(..length))
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> CaptureError + Copy {
    move |source| CaptureError::Tap { step, source }
}

/// Compiles what the kernel runs on each packet. The two ports of a segment stand behind each other, so
/// that a connection is two numbers of 32 bits.
fn program(ports: &[(u16, u16)]) -> Vec<SockFilter> {
    let mut program = vec![
        step(LOAD_WORD, (0, 0), ancillary(libc::SKF_AD_HATYPE)),
        step(EQUAL, (16, 0), u32::from(libc::ARPHRD_LOOPBACK)),
        step(LOAD_WORD, (0, 0), ancillary(libc::SKF_AD_PROTOCOL)),
        step(EQUAL, (0, 9), libc::ETH_P_IP.cast_unsigned()),
        step(LOAD_BYTE, (0, 0), NETWORK + 9),
        step(EQUAL, (0, 12), libc::IPPROTO_TCP.cast_unsigned()),
        step(LOAD_HALF, (0, 0), NETWORK + 6),
        step(ANY_BIT, (10, 0), FRAGMENT),
        step(LOAD_BYTE, (0, 0), NETWORK),
        step(AND, (0, 0), 0x0f),
        step(SHIFT_LEFT, (0, 0), 2),
        step(COPY_TO_INDEX, (0, 0), 0),
        step(GO, (0, 0), 6),
        step(EQUAL, (0, 4), libc::ETH_P_IPV6.cast_unsigned()),
        step(LOAD_BYTE, (0, 0), NETWORK + 6),
        step(EQUAL, (0, 2), libc::IPPROTO_TCP.cast_unsigned()),
        step(SET_INDEX, (0, 0), V6_HEADER),
        step(GO, (0, 0), 1),
        step(RETURN, (0, 0), 0),
        step(LOAD_WORD_INDEXED, (0, 0), NETWORK),
    ];
    for (one, other) in ports {
        for (from, to) in [(one, other), (other, one)] {
            program.push(step(EQUAL, (0, 1), u32::from(*from) << 16 | u32::from(*to)));
            program.push(step(RETURN, (0, 0), SHOWN));
        }
    }
    program.push(step(RETURN, (0, 0), 0));
    program
}

/// One instruction; how many it skips if its test holds, and if not.
fn step(code: u32, (yes, no): (u8, u8), value: u32) -> SockFilter {
    SockFilter::new(u16::try_from(code).unwrap_or(u16::MAX), yes, no, value)
}

const fn ancillary(field: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + field).cast_unsigned()
}

const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
const V6_HEADER: u32 = 40;
const SHOWN: u32 = 120;
/// "More fragments", or an offset.
const FRAGMENT: u32 = 0x3fff;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD_INDEXED: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const SET_INDEX: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
const COPY_TO_INDEX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const SHIFT_LEFT: u32 = libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
