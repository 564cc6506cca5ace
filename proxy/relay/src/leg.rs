//! One connection of a flow, which is reset unless it is said to have ended in order.

use std::ops::{Deref, DerefMut};

use tokio::net::TcpStream;

/// A connection whose peer must not take a cut for an end: dropped without [`Leg::finish`], also because
/// its task was dropped, it is reset.
#[derive(Debug)]
pub(crate) struct Leg {
    stream: TcpStream,
    orderly: bool,
}

impl Leg {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, orderly: false }
    }

    /// Both ends have said that they are done: close without a reset.
    pub(crate) fn finish(mut self) {
        self.orderly = true;
    }
}

impl Deref for Leg {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl DerefMut for Leg {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if !self.orderly
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "closed without a reset");
        }
    }
}
