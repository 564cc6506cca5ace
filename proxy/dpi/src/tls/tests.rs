//! TLS flows.
