//! The pods' mailboxes.

pub mod dir;
pub mod watch;
