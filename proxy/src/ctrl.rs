//! The two ctrl sockets: requests of an agent in, replies and notifications out (`docs/proxy.md`).

mod answer;
mod background;
mod debug;
mod frame;
mod inbox;
mod keep;
mod link;
mod metrics;
mod notify;
mod outbox;
mod policy;
mod queries;
mod replies;
mod report;
mod server;
mod start;
mod state;
mod swap;

pub(crate) use metrics::CtrlMetrics;
pub(crate) use server::Server;
pub(crate) use start::{Beginning, begin};
pub(crate) use state::{Port, PortUse, SensorTotals, State};
