//! Rules compiled to one immutable snapshot; a query in, a decision out.
#![forbid(unsafe_code)]
