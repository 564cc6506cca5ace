//! Ports that we dial from: where clients take none, below the range that Linux gives to connections by default, which is
//! also below everybody else's.
//!
//! A connection that borrows a client's address must have another port than the client's own: the workload's end has
//! the client's address and our port, the proxy's end of the client's connection the client's address and port, and
//! the kernel could not tell the two apart.
//!
//! A connection from the pod's own address must have a port that the workload does not get afterwards. When the other
//! end resets ours, the kernel's connection tracking keeps it for 10 s (`nf_conntrack_tcp_timeout_close`) and takes
//! the workload's next connection from the same port to the same destination for a part of it, which no rule then
//! redirects (`nf_conntrack_proto_tcp.c`: it is begun anew only if the same side had reset it).
//!
//! A port that was bound before the connect may be taken again although its last connection is not forgotten yet
//! (`TIME_WAIT`): many short connections use no port up.

use std::sync::atomic::{AtomicU32, Ordering};

/// First port that needs no privilege.
const FIRST: u32 = 1024;
/// First port that Linux gives to clients by default.
const END: u32 = 32_768;

/// The port to try next: the one that was tried longest ago.
pub(crate) fn next() -> u16 {
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
        let ports: HashSet<_> = (FIRST..END).map(|_| next()).collect();
        assert_eq!(ports.len(), 31_744, "every port before any comes again");
        assert!(ports.iter().all(|port| (1024..32_768).contains(port)));
    }
}
