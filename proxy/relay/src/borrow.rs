//! Ports for connections that borrow a client's address.
//!
//! The workload's end of such a connection has the client's address and our port; the proxy's own end of the
//! client's connection has the client's address and the client's port. Where both ports are the same, the kernel
//! cannot tell the two apart, and neither goes on. So these ports are taken from where clients take none: below
//! the range that Linux gives to connections by default, which is also below everybody else's.
//!
//! A port that was bound before the connect may be taken again although its last connection is not forgotten yet
//! (TIME_WAIT): many short connections of one client use no port up.

use std::sync::atomic::{AtomicU32, Ordering};

/// First port that needs no privilege.
const FIRST: u32 = 1024;
/// First port that Linux gives to clients by default.
const END: u32 = 32_768;

/// The port to try next: the one that was tried longest ago.
pub(crate) fn port() -> u16 {
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    u16::try_from(FIRST + turn % (END - FIRST)).unwrap_or_default()
}

static TURN: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn takes_turns_below_the_ports_of_clients() {
        let ports: HashSet<_> = (FIRST..END).map(|_| port()).collect();
        assert_eq!(ports.len(), 31_744, "every port before any comes again");
        assert!(ports.iter().all(|port| (1024..32_768).contains(port)));
    }
}
