//! The bridge against proxies made up of the wire crate, over real unix sockets and a real store.

#[cfg(test)]
#[path = "bridge/access.rs"]
mod access;
#[cfg(test)]
#[path = "bridge/api.rs"]
mod api;
#[cfg(test)]
#[path = "bridge/api_hostile.rs"]
mod api_hostile;
#[cfg(test)]
#[path = "bridge/captures.rs"]
mod captures;
#[cfg(test)]
#[path = "bridge/cluster.rs"]
mod cluster;
#[cfg(test)]
#[path = "bridge/csi.rs"]
mod csi;
#[cfg(test)]
#[path = "bridge/ending.rs"]
mod ending;
#[cfg(test)]
#[path = "bridge/events.rs"]
mod events;
#[cfg(test)]
#[path = "bridge/export.rs"]
mod export;
#[cfg(test)]
#[path = "bridge/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "bridge/grpc.rs"]
mod grpc;
#[cfg(test)]
#[path = "bridge/grpc_python.rs"]
mod grpc_python;
#[cfg(test)]
#[path = "bridge/grpc_tls.rs"]
mod grpc_tls;
#[cfg(test)]
#[path = "bridge/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "bridge/https.rs"]
mod https;
#[cfg(test)]
#[path = "bridge/identity.rs"]
mod identity;
#[cfg(test)]
#[path = "bridge/link.rs"]
mod link;
#[cfg(test)]
#[path = "bridge/metrics.rs"]
mod metrics;
#[cfg(test)]
#[path = "bridge/neuvector.rs"]
mod neuvector;
#[cfg(test)]
#[path = "bridge/openapi.rs"]
mod openapi;
#[cfg(test)]
#[path = "bridge/pages.rs"]
mod pages;
#[cfg(test)]
#[path = "bridge/pods.rs"]
mod pods;
#[cfg(test)]
#[path = "bridge/policy.rs"]
mod policy;
#[cfg(test)]
#[path = "apiserver/port.rs"]
mod port;
#[cfg(test)]
#[path = "bridge/proxy.rs"]
mod proxy;
#[cfg(test)]
#[path = "bridge/reports.rs"]
mod reports;
#[cfg(test)]
#[path = "bridge/review.rs"]
mod review;
#[cfg(test)]
#[path = "bridge/running.rs"]
mod running;
#[cfg(test)]
#[path = "bridge/services.rs"]
mod services;
#[cfg(test)]
#[path = "bridge/spoof.rs"]
mod spoof;
#[cfg(test)]
#[path = "bridge/store.rs"]
mod store;
#[cfg(test)]
#[path = "bridge/world.rs"]
mod world;
