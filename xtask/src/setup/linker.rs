//! bpf-linker, compiled against the LLVM of the compiler it serves.
//!
//! It reads the bitcode that the compiler writes, so both must be of one LLVM. Each pair of linker version
//! and compiler has a folder of its own, and a compiler that is updated gets a new linker by itself.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Toolchain, Way};
use crate::progress;
use crate::workspace::{Workspace, output_of};

pub const VERSION: &str = "0.13.0";

pub struct Linker {
    pub path: PathBuf,
}

impl Display for Linker {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {VERSION} ({})", self.path.display())
    }
}

/// The linker, if it is there and starts: its LLVM may have gone since.
pub fn find(workspace: &Workspace, toolchain: &Toolchain) -> Option<Linker> {
    let path = folder(workspace, toolchain).join("bin/bpf-linker");
    output_of(Command::new(&path).arg("--version")).ok()?;
    Some(Linker { path })
}

pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> Result<Linker> {
    if let Some(linker) = find(workspace, toolchain) {
        return Ok(linker);
    }
    let folder = folder(workspace, toolchain);
    let llvm = match toolchain.way {
        Way::Rustup => link_to_llvm(&folder, toolchain)?,
        Way::Debian => format!("/usr/lib/llvm-{}", toolchain.llvm).into(),
    };
    let scratch = folder.join("build");
    let mut install = Command::new(&toolchain.cargo);
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"])
        .arg(format!("--features=llvm-{}", toolchain.llvm))
        .arg("--root")
        .arg(&folder)
        .arg("--target-dir")
        .arg(&scratch)
        .current_dir(&workspace.tools)
        .env("RUSTC", &toolchain.rustc)
        .env("LLVM_PREFIX", &llvm)
        // Half the time of the build would go into debug information that nobody reads.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    for inherited in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN"]
    {
        install.env_remove(inherited);
    }
    progress::step(&format!("building bpf-linker {VERSION} for LLVM {}", toolchain.llvm), &mut install)?;
    // Best effort: what stays is only disk space.
    let _ = fs::remove_dir_all(scratch);
    find(workspace, toolchain).context("bpf-linker was built but does not start")
}

pub fn folder(workspace: &Workspace, toolchain: &Toolchain) -> PathBuf {
    let way = match toolchain.way {
        Way::Rustup => "",
        Way::Debian => "-debian",
    };
    workspace
        .tools
        .join(format!("bpf-linker-{VERSION}-rustc-{}-{}{way}", toolchain.release, toolchain.commit))
}

/// An LLVM prefix that is nothing but links into the toolchain: one under the library's own name for
/// running, one under the name that is asked for when linking.
fn link_to_llvm(folder: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let library = toolchain.llvm_library().context("the toolchain carries no libLLVM")?;
    let prefix = folder.join("llvm");
    let links = prefix.join("lib");
    fs::create_dir_all(&links).with_context(|| format!("cannot make {}", links.display()))?;
    let own_name = library.file_name().context("a library has a name")?;
    for name in [own_name, "libLLVM.so".as_ref()] {
        let link = links.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(prefix)
}
