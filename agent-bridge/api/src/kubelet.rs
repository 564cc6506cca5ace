//! Between the kubelet and a CSI driver: messages and services, made from `proto/csi.proto` and
//! `proto/registration.proto` when this is built.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "made by a machine; what members mean is said in the .proto files"
)]

/// The driver.
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How the kubelet gets to know it.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
