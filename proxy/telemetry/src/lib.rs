//! Flow records, connection rows, metric families, logs.
#![forbid(unsafe_code)]
