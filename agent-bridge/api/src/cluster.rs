//! Between bridge and controller: messages and service, made from `proto/cluster.proto` when this is built.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "made by a machine; what members mean is said in the .proto file"
)]

tonic::include_proto!("outrider.cluster.v1");
