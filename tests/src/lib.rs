//! The namespaces' world, golden corpora, conformance, architecture.
#![forbid(unsafe_code)]
