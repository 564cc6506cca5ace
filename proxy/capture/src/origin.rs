//! Where a connection was meant to go.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use outrider_model::OriginalDst;
use socket2::SockRef;

use crate::CaptureMode;

/// Original destination of an accepted connection, and what brought it here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) original: OriginalDst,
    pub(crate) by: Option<CaptureMode>,
}

/// Finds the origin of an accepted socket. `local` is the socket's own address as the kernel told
/// it, `listening` the listener's port.
pub(crate) fn find(
    socket: &SockRef<'_>,
    local: SocketAddr,
    listening: u16,
    mode: CaptureMode,
) -> io::Result<Origin> {
    // A hairpin of the proxy's own uid is redirected even where the rest comes by TPROXY.
    if mode == CaptureMode::Tproxy && local.port() != listening {
        return Ok(Origin { original: OriginalDst::new(local), by: Some(CaptureMode::Tproxy) });
    }
    Ok(compare(tracked(socket, local.ip())?, local))
}

/// What conntrack remembers. A v4 client of a v6 socket is found at the v4 level.
fn tracked(socket: &SockRef<'_>, local: IpAddr) -> io::Result<Option<SocketAddr>> {
    let found = match local.to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    match found {
        Ok(address) => Ok(address.as_socket()),
        Err(error) if untracked(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// No conntrack entry, or no conntrack at all: nothing was rewritten.
fn untracked(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT | libc::EOPNOTSUPP))
}

/// A tracked connection that nobody rewrote has its own local address as original destination.
fn compare(tracked: Option<SocketAddr>, local: SocketAddr) -> Origin {
    let local = OriginalDst::new(local);
    let original = tracked.map_or(local, OriginalDst::new);
    Origin { original, by: (original != local).then_some(CaptureMode::Redirect) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_untracked_connection_was_not_redirected() {
        let origin = compare(None, addr("[::ffff:10.0.0.2]:15106"));
        assert_eq!(origin, Origin { original: OriginalDst::new(addr("10.0.0.2:15106")), by: None });
    }

    #[test]
    fn a_connection_to_the_listener_itself_was_not_redirected() {
        let origin = compare(Some(addr("10.0.0.2:15106")), addr("[::ffff:10.0.0.2]:15106"));
        assert_eq!(origin.by, None);
    }

    #[test]
    fn a_rewritten_connection_was_redirected() {
        let origin = compare(Some(addr("10.0.0.2:8080")), addr("[::ffff:10.0.0.2]:15106"));
        assert_eq!(origin.by, Some(CaptureMode::Redirect));
        assert_eq!(origin.original.addr(), addr("10.0.0.2:8080"));
    }
}
