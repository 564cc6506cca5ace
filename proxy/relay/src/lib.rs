//! One flow's life: judge, dial, copy, inspect, judge again, close.
//!
//! [`Relay::run`] is one task for both directions of one flow. Bytes go on as they came; what passes is
//! shown to the inspector first, what it learns goes to policy, and policy may end the flow. When nothing
//! more is to be read, the kernel moves the bytes.
//!
//! ```text
//!   judge ── Deny ──► reset, nobody is dialled
//!     │
//!    dial ── fails ─► reset
//!     │
//!    copy ◄─ chunk ─► inspect ─ events ─► judge ── Deny ──► answer (403, alert), reset both
//!     │
//!    splice, once nobody wants the bytes
//! ```
#![forbid(unsafe_code)]

mod closing;
mod dial;
mod half;
mod inspection;
mod judge;
mod leg;
mod legs;
mod pipe;
mod ports;
mod pump;
mod relay;
mod scratch;
mod settings;
mod timers;
mod view;

pub use dial::{Delivery, DialError, Source, dial};
pub use judge::{Judge, Law};
pub use legs::{Legs, MAX_LEGS};
pub use relay::Relay;
pub use settings::RelaySettings;
pub use view::{PolicyHandle, PolicyView};

#[cfg(test)]
mod tests;
