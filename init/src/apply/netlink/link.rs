//! A pair of linked interfaces, for the peer that verify needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use nix::net::if_::if_nametoindex;

use super::message::{Message, NEW, Socket, attribute};

/// Creates `name` here and `peer` in another namespace, linked to each other.
///
/// # Errors
/// If the kernel refuses.
pub fn add_pair(name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
    const NAME: u16 = 3;
    const LINK_INFO: u16 = 18;
    const NAMESPACE: u16 = 28;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const PEER: u16 = 1;
    let mut other = interface(0, 0, 0);
    attribute(&mut other, NAME, &text(peer));
    attribute(&mut other, NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, PEER, &other);
    let mut info = Vec::new();
    attribute(&mut info, KIND, b"veth");
    attribute(&mut info, DATA, &data);
    let mut body = interface(0, 0, 0);
    attribute(&mut body, NAME, &text(name));
    attribute(&mut body, LINK_INFO, &info);
    Socket::route()?.ask(&Message::new(libc::RTM_NEWLINK, NEW, body))
}

/// Removes an interface, and the one that it is linked to.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(name: &str) -> io::Result<()> {
    let index = if_nametoindex(name)?;
    Socket::route()?.ask(&Message::new(libc::RTM_DELLINK, 0, interface(index, 0, 0)))
}

/// Gives an interface an address, usable at once, and sets it up.
///
/// # Errors
/// If the kernel refuses.
pub fn set_up(name: &str, addrs: &[(IpAddr, u8)]) -> io::Result<()> {
    const UP: u32 = 1;
    let index = if_nametoindex(name)?;
    let socket = Socket::route()?;
    for (addr, prefix) in addrs {
        socket.ask(&Message::new(libc::RTM_NEWADDR, NEW, address(index, *addr, *prefix)))?;
    }
    socket.ask(&Message::new(libc::RTM_NEWLINK, 0, interface(index, UP, UP)))
}

/// An interface header: any family, any type, index, flags, which flags count.
fn interface(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn address(index: u32, addr: IpAddr, prefix: u8) -> Vec<u8> {
    const LOCAL: u16 = 2;
    const NO_DUPLICATE_DETECTION: u8 = 2;
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let family = u8::try_from(family).unwrap_or_default();
    let mut body = vec![family, prefix, NO_DUPLICATE_DETECTION, 0];
    body.extend(index.to_ne_bytes());
    match addr {
        IpAddr::V4(addr) => attribute(&mut body, LOCAL, &addr.octets()),
        IpAddr::V6(addr) => attribute(&mut body, LOCAL, &addr.octets()),
    }
    body
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
