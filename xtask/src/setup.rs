//! The toolchain for the kernel programs, and the programs that labs run.
//!
//! Two ways lead to a toolchain, tried in this order:
//!
//! 1. *rustup*: a toolchain of rustup's with an LLVM that bpf-linker can speak. A stable one does: cargo
//!    takes `-Z build-std` when `RUSTC_BOOTSTRAP=1` is set, and then the kernel programs and the daemon are
//!    compiled by one and the same compiler. Only the sources of `core` may have to be added.
//! 2. *debian*: rustc, cargo, the sources and LLVM as Debian packages, where rustup's server is out of reach.
//!
//! Either way bpf-linker is compiled against the very LLVM of that compiler. The choice is written down in
//! the tools folder and kept for as long as it works.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::workspace::Workspace;
use crate::{packages, python};

use linker::Linker;
use toolchain::Toolchain;

mod check;
mod linker;
mod toolchain;

#[derive(clap::Args)]
pub struct Arguments {
    /// Change nothing: print what is needed and what is here; exit code 1 if something is missing
    #[arg(long)]
    check: bool,
    /// Take this way to a toolchain and no other
    #[arg(long)]
    way: Option<Way>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    Rustup,
    Debian,
}

/// What builds the kernel programs.
pub struct Ready {
    pub toolchain: Toolchain,
    pub linker: Linker,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        return Ok(check::print(workspace, arguments.way));
    }
    let ready = ensure_toolchain(workspace, arguments.way)?;
    packages::ensure(packages::FOR_LABS)?;
    python::ensure(workspace)?;
    eprintln!("the kernel programs are compiled by {} and linked by {}", ready.toolchain, ready.linker);
    eprintln!("ready: `cargo xtask demo` shows Weir at work, `cargo xtask test` runs every test");
    Ok(ExitCode::SUCCESS)
}

/// All that demonstrations and tests need; quick when it is there already.
pub fn ensure(workspace: &Workspace) -> Result<Ready> {
    let ready = ensure_toolchain(workspace, None)?;
    packages::ensure(packages::FOR_LABS)?;
    Ok(ready)
}

pub fn ensure_toolchain(workspace: &Workspace, way: Option<Way>) -> Result<Ready> {
    packages::ensure(packages::FOR_BUILDING)?;
    if let Some(ready) = remembered(workspace, way) {
        return Ok(ready);
    }
    fs::create_dir_all(&workspace.tools)
        .with_context(|| format!("cannot make {}", workspace.tools.display()))?;
    // Two clones may be set up at once: the second one waits, and finds everything done.
    let lock = File::create(workspace.tools.join("lock"))?;
    lock.lock().context("cannot lock the tools folder")?;
    if let Some(ready) = remembered(workspace, way) {
        return Ok(ready);
    }
    let toolchain = toolchain::choose(way)?;
    let linker = linker::ensure(workspace, &toolchain)?;
    let ready = Ready { toolchain, linker };
    remember(workspace, &ready)?;
    Ok(ready)
}

// === impl Way ===

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        }
    }
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === the remembered choice ===

fn choice_file(workspace: &Workspace) -> PathBuf {
    workspace.tools.join("ebpf-toolchain.json")
}

/// The last choice, if it is of the wanted way and still what it was: toolchains get updated and removed.
fn remembered(workspace: &Workspace, way: Option<Way>) -> Option<Ready> {
    let choice: Value = serde_json::from_str(&fs::read_to_string(choice_file(workspace)).ok()?).ok()?;
    let chosen = Way::from_str(choice["way"].as_str()?, true).ok()?;
    if way.is_some_and(|way| way != chosen) {
        return None;
    }
    let toolchain =
        Toolchain::inspect(chosen, choice["toolchain"].as_str()?, choice["rustc"].as_str()?.as_ref()).ok()?;
    if !toolchain.fits() || !toolchain.has_core_sources() {
        return None;
    }
    let linker = linker::find(workspace, &toolchain)?;
    Some(Ready { toolchain, linker })
}

fn remember(workspace: &Workspace, ready: &Ready) -> Result<()> {
    let toolchain = &ready.toolchain;
    let choice = json!({
        "way": toolchain.way.name(),
        "toolchain": toolchain.name,
        "rustc": toolchain.rustc,
        "linker": ready.linker.path,
    });
    let file = choice_file(workspace);
    fs::write(&file, format!("{choice:#}\n")).with_context(|| format!("cannot write {}", file.display()))
}
