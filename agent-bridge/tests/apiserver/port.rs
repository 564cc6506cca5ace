//! Ports for programs that are told where to listen.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// A port that nobody else takes until somebody is told to listen there, which may be seconds later: below those that
/// the kernel gives away, and never the same twice.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 200 * 50;
    loop {
        let next = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + (first + next) % 10_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
