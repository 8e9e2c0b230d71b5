//! Embeds the kernel programs into the binary, when they have been built.
//!
//! `cargo xtask build` names the object in `WEIR_EBPF_OBJECT`. Without that variable and without an object in
//! the workspace's `target/ebpf`, nothing is embedded: checking, linting and unit tests need no eBPF toolchain,
//! and a daemon built so says what it lacks.

use std::{env, fs, path::PathBuf};

const OBJECT: &str = "WEIR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");

    let beside = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../target/ebpf/weir-ebpf.o");
    let object = env::var_os(OBJECT).filter(|path| !path.is_empty()).map_or(beside, PathBuf::from);
    // A file that isn't there counts as changed each time: that is wanted, it may appear.
    println!("cargo::rerun-if-changed={}", object.display());

    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if env::var_os(OBJECT).is_some_and(|path| !path.is_empty()) => {
            panic!("{OBJECT} names {}, which can't be read: {error}", object.display())
        }
        Err(_) => Vec::new(),
    };
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("weir-ebpf.o");
    fs::write(&embedded, bytes).expect("OUT_DIR can be written");
    println!("cargo::rustc-env=WEIR_EBPF_EMBEDDED={}", embedded.display());
}
