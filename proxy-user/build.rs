//! Embeds the kernel programs into the binary, when they have been built.
//!
//! `cargo xtask build` names the object in `WEIR_EBPF_OBJECT`; the one with the programs that log lies beside it. Without that
//! variable and without an object in the workspace's `target/ebpf`, nothing is embedded: checking, linting and unit tests need no
//! eBPF toolchain, and a daemon built so says what it lacks.
//!
//! An object is mostly debug information, of which the linker has made BTF already. That is left out.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OBJECT: &str = "WEIR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");

    let beside = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../target/ebpf/weir-ebpf.o");
    let named = env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from);
    let object = named.clone().unwrap_or(beside);
    embed(&object, "WEIR_EBPF_EMBEDDED", named.is_some());
    embed(&object.with_file_name("weir-ebpf-log.o"), "WEIR_EBPF_LOG_EMBEDDED", false);
}

fn embed(object: &Path, variable: &str, must_be_there: bool) {
    // A file that isn't there counts as changed each time: that is wanted, it may appear.
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = match fs::read(object) {
        Ok(bytes) => without_debug_information(&bytes).unwrap_or(bytes),
        Err(error) if must_be_there => {
            panic!("{OBJECT} names {}, which can't be read: {error}", object.display())
        }
        Err(_) => Vec::new(),
    };
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"))
        .join(object.file_name().expect("an object has a name"));
    fs::write(&embedded, bytes).expect("OUT_DIR can be written");
    println!("cargo::rustc-env={variable}={}", embedded.display());
}

/// The same object with sections of no length in place of `.debug_*` and their relocations: numbers of sections stay as they are.
/// `None`: it isn't one.
fn without_debug_information(object: &[u8]) -> Option<Vec<u8>> {
    // Of ELF's 64-bit, little-endian form: where the file's header and a section's have their fields.
    const IDENTITY: &[u8] = b"\x7fELF\x02\x01";
    const HEADER: usize = 64;
    let [sections_at, sections, names_in] = [0x28, 0x3c, 0x3e];
    let [name_at, kind_at, offset_at, size_at, alignment_at] = [0, 4, 24, 32, 48];
    const NO_BITS: u32 = 8;

    if !object.starts_with(IDENTITY) {
        return None;
    }
    let two =
        |bytes: &[u8], at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    let four = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let eight =
        |bytes: &[u8], at: usize| usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok();
    let table = object.get(eight(object, sections_at)?..)?.get(..two(object, sections)? * HEADER)?;
    let mut headers: Vec<Vec<u8>> = table.chunks(HEADER).map(<[u8]>::to_vec).collect();
    let names = eight(headers.get(two(object, names_in)?)?, offset_at)?;

    let mut kept = object.get(..HEADER)?.to_vec();
    for header in &mut headers {
        let name = object.get(names + four(header, name_at)? as usize..)?;
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            header[kind_at..].fill(0);
        } else if four(header, kind_at)? != NO_BITS {
            let (from, size) = (eight(header, offset_at)?, eight(header, size_at)?);
            kept.resize(kept.len().next_multiple_of(eight(header, alignment_at)?.max(1)), 0);
            header[offset_at..offset_at + 8].copy_from_slice(&(kept.len() as u64).to_le_bytes());
            kept.extend_from_slice(object.get(from..from + size)?);
        }
    }
    kept.resize(kept.len().next_multiple_of(8), 0);
    let table_at = (kept.len() as u64).to_le_bytes();
    kept[sections_at..sections_at + 8].copy_from_slice(&table_at);
    kept.extend(headers.concat());
    Some(kept)
}
