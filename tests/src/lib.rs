//! The world that the demo and the tests run in: network namespaces for a node and its pods, joined
//! by a Linux bridge, with the real binaries, real rules, real clients and servers inside.
//!
//! ```text
//!            or<pid>x<n>-node: bridge br0, outrider-agent-bridge, 10.71.0.1 fd00:71::1
//!        ┌──────────────┼──────────────┐            veth pairs, eth0 inside
//!  or..-web         or..-cache      or..-shop       outrider-init, outrider-proxy, a server
//! ```
//!
//! Everything a world makes carries its prefix, and goes when the world is dropped, when the process
//! gets SIGINT or SIGTERM, or, after a kill, when the next world is made.
#![forbid(unsafe_code)]

pub mod binaries;
pub mod cli;
pub mod crowd;
pub mod ctrl;
pub mod exchange;
pub mod metrics;
pub mod netns;
pub mod node;
pub mod pod;
pub mod process;
pub mod require;
pub mod scene;
pub mod wait;
pub mod world;

pub use crate::{
    netns::Namespace, node::Node, pod::Pod, process::Process, scene::Scene, wait::until,
    world::World,
};
