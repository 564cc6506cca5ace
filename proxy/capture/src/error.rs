//! What can go wrong between the kernel and us.

use std::io;

use thiserror::Error;

/// A listener that could not be made, or a connection that could not be taken.
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
