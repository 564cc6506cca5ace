//! Redirected TCP connections in, with the destination the client meant.
