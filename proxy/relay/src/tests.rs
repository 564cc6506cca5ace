//! Whole flows over real loopback sockets.

mod copying;
mod ending;
mod enforcing;
pub(crate) mod rig;
