//! placeholder until merged
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::copy("../target/ebpf/lb-ebpf.o", format!("{out}/lb-ebpf.o")).unwrap();
    println!("cargo::rerun-if-changed=../target/ebpf/lb-ebpf.o");
}
