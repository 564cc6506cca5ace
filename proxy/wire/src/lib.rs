//! The ctrl sockets' frames and requests, both ways: bytes to plain structs and back, no I/O.
//!
//! Three sockets, one datagram a message. The agent sends JSON requests to `dp_listen.sock`, the
//! data path answers with binary replies to the socket that asked, and sends binary notifications
//! to `ctrl_listen.sock`.
//!
//! As the data path (the proxy):
//!
//! ```
//! # fn main() -> Result<(), outrider_wire::WireError> {
//! use outrider_wire::{KeepAlive, Reply, request::Request};
//!
//! for command in Request::parse_datagram(br#"{"ctrl_keep_alive":{"seq_num":7}}"#)? {
//!     match command.request {
//!         Ok(Request::KeepAlive(asked)) => {
//!             let reply = Reply::from(KeepAlive { seq_num: asked.seq_num });
//!             assert_eq!(reply.encode()?, [10, 0, 0, 8, 0, 0, 0, 7]);
//!         }
//!         Ok(_other) => {}
//!         Err(error) => eprintln!("{}: {}", command.key, error.reason()), // ignore and count
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! As the agent (the bridge):
//!
//! ```
//! # fn main() -> Result<(), outrider_wire::WireError> {
//! use outrider_wire::{Notification, Reply, request::{KeepAlive, Request}};
//!
//! let request = Request::KeepAlive(KeepAlive { seq_num: 7 });
//! assert_eq!(request.encode()?, br#"{"ctrl_keep_alive":{"seq_num":7}}"#);
//! match Reply::decode_exact(&[10, 0, 0, 8, 0, 0, 0, 7])? {
//!     Reply::KeepAlive(alive) => assert_eq!(alive.seq_num, 7),
//!     other => eprintln!("not expected: {:?}", other.kind()),
//! }
//! assert!(Notification::decode_exact(&[99, 0, 0, 4]).is_err_and(|error| error.is_unknown()));
//! # Ok(())
//! # }
//! ```
//!
//! Lists of any length become datagrams through `split` ([`SessionList::split`],
//! [`Connections::split`], ...), long requests through [`chunk::split`]; [`chunk::Assembler`] puts
//! the latter together again. What is ours alone is in [`ext`].
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod chunk;
mod codec;
mod codes;
mod error;
pub mod ext;
pub mod limits;
mod list;
mod message;
pub mod pcapng;
pub mod request;
mod text;

pub use codec::{ByteOrder, Reader, Writer};
pub use codes::{
    ActionCode, ChunkFlags, ConnectionFlags, Directions, EtherType, FqdnFlags, MeterFlags, MeterId,
    PolicyCommand, SessionFlags, SessionState, SeverityCode, ThreatActionCode, ThreatFlags, WireIp,
};
pub use error::WireError;
pub use list::List;
pub use message::{
    AppPort, AppUpdate, Body, Connection, Connections, DeviceCounter, DeviceStats, FqdnUpdate,
    Header, IpFqdnRelease, IpFqdnUpdate, KeepAlive, Kind, MacStats, Message, Meter, MeterList,
    Notification, PARSERS, Reply, Session, SessionCount, SessionList, SessionSide, Stats,
    StatsWindow, ThreatLog,
};
pub use text::Text;
