//! The ctrl sockets' frames and requests, both ways.
#![forbid(unsafe_code)]
