//! Rules compiled to one immutable snapshot; a query in, a decision out.
//!
//! [`PolicySpec`] says what the rules are, [`Network`] what the addresses around the workload mean.
//! [`Snapshot::compile`] checks both and refuses them whole if anything is wrong;
//! [`Snapshot::decide`] then answers in a time that does not grow with the rules that don't match.
#![forbid(unsafe_code)]

mod addr_map;
mod compile;
mod error;
mod grace;
mod index;
mod name;
mod network;
mod query;
mod snapshot;
mod spec;

pub use error::PolicyError;
pub use grace::{Grace, MAX_GRACE_PAIRS};
pub use ipnet::IpNet;
pub use name::{MAX_NAME_ADDRESSES, MAX_NAME_BYTES, MAX_NAMES, Name, NameTable};
pub use network::{Network, SpecialKind};
pub use query::{AppKnowledge, Query};
pub use snapshot::Snapshot;
pub use spec::{AddrSpec, AppRule, MAX_APPS, MAX_RULES, PolicySpec, RuleSpec};
