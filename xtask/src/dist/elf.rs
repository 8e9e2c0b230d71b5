//! Just enough of ELF to tell a static binary from one that wants a loader and libraries.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const PT_INTERP: u64 = 3;

/// The loader that a binary asks for; none if it is static. Reads 64-bit little-endian ELF.
pub fn interpreter(file: &Path) -> Result<Option<String>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    interpreter_in(&bytes).with_context(|| format!("{} is no 64-bit little-endian ELF file", file.display()))
}

/// The outer `None`: this is not ELF, or it is cut off.
fn interpreter_in(bytes: &[u8]) -> Option<Option<String>> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (number(bytes, 32, 8)?, number(bytes, 54, 2)?, number(bytes, 56, 2)?);
    for index in 0..count {
        let header = headers.checked_add(index * size)?;
        if number(bytes, header, 4)? == PT_INTERP {
            let (from, length) = (number(bytes, header + 8, 8)?, number(bytes, header + 32, 8)?);
            let name =
                bytes.get(usize::try_from(from).ok()?..usize::try_from(from.checked_add(length)?).ok()?)?;
            return Some(Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()));
        }
    }
    Some(None)
}

fn number(bytes: &[u8], at: u64, width: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_dynamic() {
        let own = std::env::current_exe().expect("a test has a file");
        let loader = interpreter(&own).expect("a test is ELF");
        assert!(loader.is_some_and(|loader| loader.contains("ld-")));
    }

    #[test]
    fn what_is_no_elf_or_cut_off_is_not_judged() {
        assert_eq!(interpreter_in(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter_in(b"\x7fELF\x02\x01"), None);
    }
}
