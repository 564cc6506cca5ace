//! NeuVector's gRPC messages and services, made from `proto/` when this is built.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "made by a machine; members are named by the peer, messages say what they are"
)]

tonic::include_proto!("share");
