//! What can go wrong between the kernel and us.

use std::io;

use thiserror::Error;

/// A way in that could not be made, or traffic that could not be taken or sent.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The kernel refused the socket or one of its options.
    #[error("listening socket: {0}")]
    Socket(#[source] io::Error),
    /// A transparent socket needs `NET_RAW` or `NET_ADMIN`.
    #[error("transparent socket, which takes the capability NET_RAW: {0}")]
    Transparent(#[source] io::Error),
    /// A mark needs `NET_RAW` or `NET_ADMIN`.
    #[error("marked socket, which takes the capability NET_RAW: {0}")]
    Mark(#[source] io::Error),
    /// Somebody else has the port, or may not be asked for it.
    #[error("bind port {port}: {source}")]
    Bind {
        /// The port asked for.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// No descriptor or memory left: the listener has already waited a moment.
    #[error("out of descriptors or memory: {0}")]
    Exhausted(#[source] io::Error),
    /// The connection was gone before it could be taken; the next one is unaffected.
    #[error("accept: {0}")]
    Accept(#[source] io::Error),
    /// The connection was taken and dropped: the kernel does not say where it was meant to go.
    #[error("original destination: {0}")]
    OriginalDst(#[source] io::Error),
    /// The process has not got the capability that this takes.
    #[error("{what}, which takes the capability {capability}: {source}")]
    Missing {
        /// What was to be had.
        what: &'static str,
        /// The capability's name, without `CAP_`.
        capability: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(&'static str),
    /// The tap could not be opened, or does not work any more.
    #[error("tap, {step}: {source}")]
    Tap {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pair of interfaces could not be joined, or does not work any more.
    #[error("interface pair, {step}: {source}")]
    Pair {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network namespace may not be entered, or is none.
    #[error("network namespace, {step}: {source}")]
    Namespace {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path at which no network namespace is looked for.
    #[error("no path of a network namespace")]
    NamespacePath,
    /// A packet could not be sent.
    #[error("send a packet: {0}")]
    Send(#[source] io::Error),
    /// These bytes are no IP packet that can be sent.
    #[error("no packet that can be sent: {0}")]
    Unsendable(&'static str),
    /// The queue could not be opened, or does not work any more.
    #[error("packet queue, {step}: {source}")]
    Queue {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's flow table could not be reached or changed.
    #[error("flow table, {step}: {source}")]
    Conntrack {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not show the namespace's sockets.
    #[error("sockets of the pod, {step}: {source}")]
    Sockets {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CaptureError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Socket(_) => "socket",
            Self::Transparent(_) => "transparent",
            Self::Mark(_) => "mark",
            Self::Bind { .. } => "bind",
            Self::Exhausted(_) => "exhausted",
            Self::Accept(_) => "accept",
            Self::OriginalDst(_) => "original-dst",
            Self::Missing { .. } => "capability",
            Self::Setting(_) => "setting",
            Self::Tap { .. } => "tap",
            Self::Pair { .. } => "pair",
            Self::Namespace { .. } | Self::NamespacePath => "namespace",
            Self::Send(_) => "send",
            Self::Unsendable(_) => "unsendable",
            Self::Queue { .. } => "queue",
            Self::Conntrack { .. } => "conntrack",
            Self::Sockets { .. } => "sockets",
        }
    }

    /// Tells a missing `NET_RAW` from any `other` failure.
    pub(crate) fn net_raw(
        what: &'static str,
        source: io::Error,
        other: impl FnOnce(io::Error) -> Self,
    ) -> Self {
        Self::or_missing("NET_RAW", what, source, other)
    }

    /// Tells a missing `NET_ADMIN` from any `other` failure.
    pub(crate) fn net_admin(
        what: &'static str,
        source: io::Error,
        other: impl FnOnce(io::Error) -> Self,
    ) -> Self {
        Self::or_missing("NET_ADMIN", what, source, other)
    }

    /// Tells a missing capability from any `other` failure.
    pub(crate) fn or_missing(
        capability: &'static str,
        what: &'static str,
        source: io::Error,
        other: impl FnOnce(io::Error) -> Self,
    ) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Missing { what, capability, source },
            _ => other(source),
        }
    }

    /// Sorts what `accept` reported.
    pub(crate) fn from_accept(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                Self::Exhausted(error)
            }
            _ => Self::Accept(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_exhaustion_from_a_lost_connection() {
        for (errno, reason) in [
            (libc::EMFILE, "exhausted"),
            (libc::ENFILE, "exhausted"),
            (libc::ENOBUFS, "exhausted"),
            (libc::ENOMEM, "exhausted"),
            (libc::ECONNABORTED, "accept"),
            (libc::EPROTO, "accept"),
        ] {
            let error = CaptureError::from_accept(io::Error::from_raw_os_error(errno));
            assert_eq!(error.reason(), reason, "errno {errno}");
        }
    }
}
