//! Compiles the messages and the service of `proto/` into Rust.

use std::{error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    compile_proto()
}

/// Writes `lb.v1.rs` with client and server. The compiler is written in Rust, so that no `protoc`
/// needs to be installed.
fn compile_proto() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../proto");
    let file = root.join("lb/v1/agent.proto");
    println!("cargo::rerun-if-changed={}", file.display());
    let descriptors = protox::compile([&file], [root])?;
    tonic_prost_build::configure()
        // Sorted maps print the same every time.
        .btree_map(".")
        // `-o json` prints the messages as they are.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    Ok(())
}
