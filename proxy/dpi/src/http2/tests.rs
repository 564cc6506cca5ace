//! HTTP/2 flows.
