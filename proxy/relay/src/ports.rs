//! Ports that we dial from: where Linux gives clients none by default.
//!
//! A connection that borrows a client's address must have another port than the client's own: the workload's end has
//! the client's address and our port, the proxy's end of the client's connection the client's address and port, and
//! the kernel could not tell the two apart. The client may be a proxy, so those ports are not these either.
//!
//! A connection from the pod's own address must have a port that the workload does not get afterwards. When the other
//! end resets ours, the kernel's connection tracking keeps it for 10 s (`nf_conntrack_tcp_timeout_close`) and takes
//! the workload's next connection from the same port to the same destination for a part of it, which no rule then
//! redirects (`nf_conntrack_proto_tcp.c`: it is begun anew only if the same side had reset it).
//!
//! A port that was bound before the connect may be taken again although its last connection is not forgotten yet
//! (`TIME_WAIT`): many short connections use no port up.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

/// Ports that are taken in turn.
#[derive(Debug)]
pub(crate) struct Ports {
    range: Range<u32>,
    /// To try at most: so many in a row are in use only if nearly all are.
    pub(crate) attempts: usize,
    turn: AtomicU32,
}

/// With a client's address: from the first that needs no privilege to the last below those that Linux gives to clients.
pub(crate) static BORROWED: Ports =
    Ports { range: 1024..32_768, attempts: 64, turn: AtomicU32::new(0) };

/// With the pod's own address: above those that Linux gives to clients. The kernel chooses when none is found.
pub(crate) static OWN: Ports =
    Ports { range: 61_000..65_536, attempts: 8, turn: AtomicU32::new(0) };

impl Ports {
    /// The port to try next: the one that was tried longest ago.
    pub(crate) fn next(&self) -> u16 {
        let Range { start, end } = self.range;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        u16::try_from(start + turn % (end - start)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn takes_turns_where_clients_have_none() {
        for (ports, count) in [(&BORROWED, 31_744), (&OWN, 4_536)] {
            let all: HashSet<_> = (0..count).map(|_| u32::from(ports.next())).collect();
            assert_eq!(all.len(), count, "every port before any comes again");
            assert!(all.iter().all(|port| ports.range.contains(port)));
            assert!(!all.iter().any(|port| (32_768..61_000).contains(port)));
        }
    }
}
