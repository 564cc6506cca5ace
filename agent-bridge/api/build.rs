//! Makes the gRPC types from `proto/`, without the C++ compiler of protocol buffers.

/// Services, each in a file of its own; `common.proto` comes with them.
const FILES: [&str; 5] =
    ["enforcer.proto", "controller.proto", "cluster.proto", "csi.proto", "registration.proto"];
const DIR: &str = "proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={DIR}");
    let described = protox::compile(FILES, [DIR])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .generate_default_stubs(true)
        .compile_fds(described)?;
    Ok(())
}
