//! What is ours and what was left out on purpose: what both the wire and the sockets are held against.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use outrider_capture::{InetSocket, own_inodes};
use outrider_model::Direction;
use tracing::debug;

use super::trick::Ends;
use crate::context::SharedContext;

/// The pod and the proxy in it, as far as telling tricks takes it.
#[derive(Clone, Debug)]
pub(super) struct Known(SharedContext);

impl Known {
    pub(super) fn new(context: SharedContext) -> Self {
        Self(context)
    }

    /// Whether the proxy listens there.
    pub(super) fn is_own_port(&self, port: u16) -> bool {
        port != 0 && self.0.settings.own_ports().contains(&port)
    }

    /// Whether it is the proxy's user.
    pub(super) fn is_own_uid(&self, uid: u32) -> bool {
        uid == self.0.rights.uid
    }

    /// Whether the address leads back into the pod.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        self.0.identity.load().is_local(ip)
    }

    /// Whether the connection is, or was, the proxy's.
    pub(super) fn is_leg(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.0.legs.has(local, remote)
    }

    /// Whether no socket of the proxy ever has the workload's own port.
    pub(super) fn is_redirected(&self) -> bool {
        self.0.legs.are_redirected()
    }

    /// Keeps a connection of the proxy in mind, for as long as it is seen.
    pub(super) fn keep_leg(&self, socket: &InetSocket) {
        self.0.legs.add(socket.local, socket.remote);
    }

    /// Whether "not the proxy's" is certain of connections that are this old.
    pub(super) fn legs_are_whole(&self, since: std::time::Duration) -> bool {
        self.0.legs.is_whole(since)
    }

    /// Whether the operator has left out one of the ports.
    pub(super) fn is_uncaptured(&self, ports: [u16; 2]) -> bool {
        let left_out = &self.0.settings.packets.uncaptured;
        ports
            .iter()
            .any(|port| left_out.binary_search(port).is_ok())
    }

    /// The port, if the operator has left it out, or the network that the other end is in.
    pub(super) fn uncaptured(&self, ends: &Ends) -> Option<u16> {
        let port = match ends.direction {
            Direction::Outbound => ends.remote.port(),
            Direction::Inbound => ends.local.port(),
        };
        let packets = &self.0.settings.packets;
        let network = packets
            .uncaptured_networks
            .iter()
            .any(|network| network.contains(&ends.remote.ip()));
        (network || packets.uncaptured.binary_search(&port).is_ok()).then_some(port)
    }
}

/// The numbers of the proxy's own sockets, read when they are first needed: with thousands of
/// connections that takes its time.
#[derive(Debug, Default)]
pub(super) struct OwnSockets(Option<HashSet<u32>>);

impl OwnSockets {
    /// Whether anybody has asked.
    pub(super) fn was_read(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the socket is the proxy's. Where nobody can tell it counts as ours: no finding is
    /// made up.
    pub(super) fn has(&mut self, inode: u32) -> bool {
        if self.0.is_none() {
            match own_inodes() {
                Ok(own) => self.0 = Some(own),
                Err(error) => {
                    debug!(%error, "own sockets cannot be told from others");
                    return true;
                }
            }
        }
        self.0.as_ref().is_none_or(|own| own.contains(&inode))
    }
}
