//! Brings into the agent what other tools build: the programs for the kernel, without what only
//! debuggers read, and the messages of the API.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use object::{build::elf, elf::SHT_STRTAB};

fn main() -> Result<(), Box<dyn Error>> {
    // Alone, this line keeps cargo from watching every file of the crate.
    println!("cargo::rerun-if-changed=build.rs");
    embed_programs()?;
    compile_proto()
}

/// Puts the object with the programs into `OUT_DIR/lb-ebpf.o`. `LB_EBPF_OBJECT` names another one
/// than that of `cargo xtask build-ebpf`.
fn embed_programs() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT");
    let object = env::var_os("LB_EBPF_OBJECT")
        .map_or_else(|| top_level().join("target/ebpf/lb-ebpf.o"), PathBuf::from);
    // Also while it does not exist: cargo then looks again at the next build.
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        // Cargo fails the build for this line; going on to an error of our own would only bury
        // it under a dump of this script's output.
        println!(
            "cargo::error=the programs for the kernel are missing at {}: run `cargo xtask \
             build-ebpf` first",
            object.display()
        );
        return Ok(());
    }
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("lb-ebpf.o");
    let built = fs::read(&object)
        .map_err(|error| format!("could not read {}: {error}", object.display()))?;
    let stripped = without_debug_sections(&built)
        .map_err(|error| format!("could not strip {}: {error}", object.display()))?;
    fs::write(&embedded, stripped)
        .map_err(|error| format!("could not write {}: {error}", embedded.display()))?;
    Ok(())
}

/// The object without its DWARF sections: two thirds of it, which the running agent would have in
/// memory with the rest. The kernel's kind of debugging information (BTF) stays.
fn without_debug_sections(built: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut object = elf::Builder::read(built)?;
    for section in &mut object.sections {
        // With the relocations of each, which have its name behind their own prefix.
        let name = section.name.strip_prefix(b".rel").unwrap_or(&section.name);
        section.delete = name.starts_with(b".debug_");
    }
    object.delete_orphans();
    // LLVM has the names of sections and symbols in one table; the writer wants two.
    let names = object.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.data = elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(stripped)
}

/// Generates the API's messages, client and server. protox compiles them without `protoc`.
fn compile_proto() -> Result<(), Box<dyn Error>> {
    let proto = top_level().join("proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let messages = protox::compile(["lb/v1/agent.proto"], [&proto])?;
    tonic_prost_build::configure()
        // Sorted maps print the same every time.
        .btree_map(".")
        // For `-o json`.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        // Bytes for a capture, of no use as a list of numbers.
        .field_attribute("lb.v1.PacketEvent.frame", "#[serde(skip)]")
        .compile_fds(messages)?;
    Ok(())
}

/// The top of the source tree. Absolute, since cargo runs this in the crate's directory and
/// other tools run it elsewhere.
fn top_level() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_path_buf()
}
