//! The kernel programs, then the daemon with their object inside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::setup::{self, Ready};
use crate::workspace::Workspace;

/// Little-endian eBPF, which is what every machine that Weir runs on wants.
const EBPF_TARGET: &str = "bpfel-unknown-none";

#[derive(Clone, Copy, ValueEnum)]
pub enum Profile {
    Dev,
    Release,
    /// What is shipped and measured: slow to build, fast to run
    Dist,
}

pub struct Built {
    pub weir: PathBuf,
    pub lab: PathBuf,
    pub ebpf_object: PathBuf,
}

/// Sets up what is missing, then builds the kernel programs, the daemon and the lab.
pub fn all(workspace: &Workspace, profile: Profile) -> Result<Built> {
    let ready = setup::ensure_toolchain(workspace, None)?;
    let ebpf_object = ebpf(workspace, &ready)?;
    // The whole workspace, not single packages: cargo then settles on one set of features for the
    // dependencies, and what is compiled here serves the tests as well.
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--workspace", "--bins", "--exclude=xtask"]);
    run(cargo.env("WEIR_EBPF_OBJECT", &ebpf_object), "the daemon and the lab")?;
    if !matches!(profile, Profile::Dev) {
        daemon(workspace, profile, &ebpf_object)?;
    }
    Ok(Built {
        weir: workspace.target.join(profile.folder()).join("weir"),
        lab: workspace.target.join(Profile::Dev.folder()).join("weir-lab"),
        ebpf_object,
    })
}

/// Likewise for figures, which are only worth something for what is shipped. The lab is optimised too, since the
/// daemon's library is measured in it; but it is not built as `dist` is, which aborts on a panic, where a lab has
/// namespaces to clean away.
pub fn for_benches(workspace: &Workspace) -> Result<Built> {
    const LAB: &str = "bench-lab";
    let ready = setup::ensure_toolchain(workspace, None)?;
    let ebpf_object = ebpf(workspace, &ready)?;
    daemon(workspace, Profile::Dist, &ebpf_object)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package=weir-lab", "--bin=weir-lab", "--profile", LAB]);
    run(cargo.env("WEIR_EBPF_OBJECT", &ebpf_object), "the lab")?;
    Ok(Built {
        weir: workspace.target.join(Profile::Dist.folder()).join("weir"),
        lab: workspace.target.join(LAB).join("weir-lab"),
        ebpf_object,
    })
}

fn daemon(workspace: &Workspace, profile: Profile, ebpf_object: &Path) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package=proxy-user", "--bin=weir", "--profile", profile.name()]);
    run(cargo.env("WEIR_EBPF_OBJECT", ebpf_object), "the daemon")
}

/// Builds the kernel programs and copies their objects to where everything else looks for them. Gives the first.
pub fn ebpf(workspace: &Workspace, ready: &Ready) -> Result<PathBuf> {
    let object = one_object(workspace, ready, Object::Plain)?;
    one_object(workspace, ready, Object::Telling)?;
    Ok(object)
}

#[derive(Clone, Copy)]
enum Object {
    /// All programs.
    Plain,
    /// The gate alone, with aya-log. It lies beside the other.
    Telling,
}

fn one_object(workspace: &Workspace, ready: &Ready, which: Object) -> Result<PathBuf> {
    let target = workspace.target.join("ebpf");
    let rustflags = [
        format!("-Clinker={}", ready.linker.path.display()),
        "-Cdebuginfo=2".into(),
        // From the debug information the linker writes BTF: field names for bpftool, types for maps.
        "-Clink-arg=--btf".into(),
    ];
    let mut cargo = Command::new(&ready.toolchain.cargo);
    cargo
        .args(["build", "--package=proxy-ebpf", "--bin=weir-ebpf", "--release", "--target", EBPF_TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .current_dir(&workspace.root)
        .env("RUSTC", &ready.toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
    if matches!(which, Object::Telling) {
        cargo.args(["--features", "log"]);
    }
    for inherited in
        ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(inherited);
    }
    run(&mut cargo, "the kernel programs")?;
    let linked = target.join(EBPF_TARGET).join("release/weir-ebpf");
    let object = match which {
        Object::Plain => workspace.ebpf_object(),
        Object::Telling => workspace.telling_ebpf_object(),
    };
    copy_if_changed(&linked, &object)?;
    Ok(object)
}

/// Runs a cargo that shows its own progress.
pub fn run(cargo: &mut Command, what: &str) -> Result<()> {
    let status =
        cargo.status().with_context(|| format!("cannot run {}", cargo.get_program().to_string_lossy()))?;
    anyhow::ensure!(status.success(), "building {what} failed");
    Ok(())
}

/// An object that stays as it was keeps its time too, so that the daemon isn't linked again for nothing.
fn copy_if_changed(from: &PathBuf, to: &PathBuf) -> Result<()> {
    let new = fs::read(from)
        .with_context(|| format!("the kernel programs were built, but {} is absent", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

// === impl Profile ===

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// Cargo's folder for it.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }
}
