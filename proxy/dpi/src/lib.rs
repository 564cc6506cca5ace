//! Bytes in, events out: identification, protocol parsers, threat detectors.
#![forbid(unsafe_code)]
