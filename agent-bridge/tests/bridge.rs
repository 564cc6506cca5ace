//! The bridge against proxies made up of the wire crate, over real unix sockets and a real store.

#[path = "bridge/api.rs"]
mod api;
#[path = "bridge/hostile.rs"]
mod hostile;
#[path = "bridge/link.rs"]
mod link;
#[path = "bridge/proxy.rs"]
mod proxy;
#[path = "bridge/reports.rs"]
mod reports;
#[path = "bridge/world.rs"]
mod world;
