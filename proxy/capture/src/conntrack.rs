//! The kernel's table of flows: taking the proxy's verdicts back.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

use crate::CaptureError;

/// Makes the kernel forget flows by their mark. Needs `NET_ADMIN`.
#[derive(Debug)]
pub struct Conntrack {
    /// Requests are answered one at a time.
    socket: Mutex<Socket>,
}

impl Conntrack {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// The kernel has no such interface, or the process no descriptor left. A want of the capability, which
    /// counts now, is told by [`Conntrack::forget`].
    pub fn open() -> Result<Self, CaptureError> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )
        .map_err(failed("open"))?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .map_err(failed("set up"))?;
        Ok(Self { socket: Mutex::new(socket) })
    }

    /// Deletes every flow of both families whose mark has all the bits of `mark`; other bits don't matter.
    /// Each flow's next packet is a new flow's first. Without bits this would be every flow: refused.
    /// Blocks while the kernel walks its table, a second at most.
    ///
    /// # Errors
    /// There is no capability, the kernel refuses, or it does not answer.
    pub fn forget(&self, mark: u32) -> Result<(), CaptureError> {
        if mark == 0 {
            return Err(CaptureError::Setting("flows are forgotten by a mark that is not 0"));
        }
        let mut socket = self.socket.lock();
        ask(&mut socket, &request(mark)).map_err(|source| {
            CaptureError::net_admin("flow table", source, failed("forget marked flows"))
        })
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Conntrack { step, source }
}

fn ask(socket: &mut Socket, request: &[u8]) -> io::Result<()> {
    // An answer that came too late for its own request must not be taken for this one's.
    drain(socket)?;
    socket.send(request)?;
    let mut buffer = [0; ANSWER];
    let length = socket.read(&mut buffer)?;
    match answer(buffer.get(..length).unwrap_or_default()) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(ErrorKind::InvalidData.into()),
    }
}

fn drain(socket: &mut Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    for _ in 0..MAX_STALE {
        match socket.read(&mut [0; ANSWER]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    socket.set_nonblocking(false)
}

/// The kernel's error number in the answer to a request, 0 for consent.
fn answer(datagram: &[u8]) -> Option<i32> {
    let kind = datagram.get(4..)?.first_chunk()?;
    let error = datagram.get(HEADER..)?.first_chunk()?;
    (u16::from_ne_bytes(*kind) == ERROR).then(|| i32::from_ne_bytes(*error))
}

/// "Delete" without saying which flow is "delete all", and the mark is a filter for it. The family
/// counts from version 1 of the message on; with version 0 it is both.
fn request(mark: u32) -> Vec<u8> {
    let mut message = LENGTH.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port, then family, version and resource.
    message.extend([0; 8 + 4]);
    for kind in [CTA_MARK, CTA_MARK_MASK] {
        message.extend(ATTRIBUTE.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(mark.to_be_bytes());
    }
    message
}

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Answers that may have come too late, one a request that the kernel did not answer in time.
const MAX_STALE: usize = 16;
/// Room for an answer: an error with the request's header, or with all of it.
const ANSWER: usize = 256;
/// Lengths of the header of a message, of an attribute of 4 bytes, and of the whole request.
const HEADER: usize = 16;
const ATTRIBUTE: u16 = 8;
const LENGTH: u32 = 36;
const ERROR: u16 = 2;
/// Subsystem 1 (ctnetlink), message 2 (`IPCTNL_MSG_CT_DELETE`), of `linux/netfilter/nfnetlink_conntrack.h`.
const DELETE: u16 = 1 << 8 | 2;
/// A request that is to be answered.
const REQUEST: u16 = 1 | 4;
const CTA_MARK: u16 = 8;
const CTA_MARK_MASK: u16 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_all_flows_with_the_mark() {
        let want = [
            &36_u32.to_ne_bytes()[..],
            &0x102_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &[0; 12],
            &8_u16.to_ne_bytes(),
            &8_u16.to_ne_bytes(),
            &[1, 0, 0, 0],
            &8_u16.to_ne_bytes(),
            &21_u16.to_ne_bytes(),
            &[1, 0, 0, 0],
        ];
        assert_eq!(request(0x0100_0000), want.concat());
    }

    #[test]
    fn reads_consent_refusal_and_nonsense() {
        let mut datagram = vec![0; 36];
        datagram[4] = 2;
        assert_eq!(answer(&datagram), Some(0));
        datagram[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(answer(&datagram), Some(-libc::EPERM));
        for cut in 0..20 {
            assert_eq!(answer(&datagram[..cut]), None, "cut at {cut}");
        }
        datagram[4] = 3;
        assert_eq!(answer(&datagram), None);
    }
}
