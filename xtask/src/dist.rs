//! What is given to others: one static `weir` with the kernel programs inside it, its archive, its package.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::test::host_triple;
use crate::workspace::{Workspace, output_of};
use crate::{build, setup};

mod deb;
mod elf;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What lies beside the binary in the archive.
const COMPANIONS: [&str; 4] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "packaging/weir.service"];

#[derive(clap::Args)]
pub struct Arguments {
    /// Make a Debian package as well
    #[arg(long)]
    deb: bool,
}

pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    // Before the long build, not after it.
    for file in COMPANIONS {
        anyhow::ensure!(
            workspace.root.join(file).exists(),
            "{file} is missing, and belongs into the archive"
        );
    }
    let target = host_triple()?;
    let weir = build_static(workspace, &target)?;
    prove(&weir)?;

    let dist = workspace.root.join("dist");
    fs::create_dir_all(&dist)?;
    let shipped = dist.join("weir");
    // Not copied over: a running `dist/weir` keeps the file it was started from.
    let _ = fs::remove_file(&shipped);
    fs::copy(&weir, &shipped)?;

    let mut made = vec![archive(workspace, &dist, &shipped, &target)?];
    if arguments.deb {
        made.push(deb::build(workspace, &dist, &shipped)?);
    }
    write_sums(&dist, made.iter().filter_map(|file| file.file_name()))?;
    for file in [shipped].iter().chain(&made) {
        eprintln!("{} ({} kB)", workspace.shown(file), fs::metadata(file)?.len() / 1000);
    }
    Ok(ExitCode::SUCCESS)
}

fn build_static(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    let ready = setup::ensure_toolchain(workspace, None)?;
    let object = build::ebpf(workspace, &ready)?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--package=proxy-user", "--bin=weir", "--profile=dist", "--locked"])
        // With a named target the flags below stay away from build scripts and macros, which can't be static.
        .args(["--target", target])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("WEIR_EBPF_OBJECT", &object);
    build::run(&mut cargo, "the static daemon")?;
    Ok(workspace.target.join(target).join("dist/weir"))
}

/// That the binary needs nothing and has the kernel programs inside, by its own word.
fn prove(weir: &Path) -> Result<()> {
    anyhow::ensure!(
        elf::interpreter(weir)?.is_none(),
        "{} is linked dynamically: it would not run on every host",
        weir.display()
    );
    let said = output_of(Command::new(weir).args(["version", "--json"]).env_clear())?;
    let version: serde_json::Value =
        serde_json::from_str(&said).context("`weir version --json` says no JSON")?;
    anyhow::ensure!(
        version["version"] == VERSION,
        "the binary says it is version {}, not {VERSION}",
        version["version"]
    );
    anyhow::ensure!(version["ebpf"] == true, "the binary has no kernel programs inside");
    Ok(())
}

fn archive(workspace: &Workspace, dist: &Path, weir: &Path, target: &str) -> Result<PathBuf> {
    let name = format!("weir-{VERSION}-{target}");
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::copy(weir, folder.join("weir"))?;
    for file in COMPANIONS {
        copy_into(&workspace.root.join(file), &folder)?;
    }
    for example in examples(workspace)? {
        fs::create_dir_all(folder.join("examples"))?;
        copy_into(&example, &folder.join("examples"))?;
    }
    let files = output_of(Command::new("find").args(["-type", "f"]).current_dir(&folder))?;
    write_sums(&folder, files.lines().map(|file| OsStr::new(file.trim_start_matches("./"))))?;

    let archive = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    // The same content gives the same archive, whoever makes it.
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--gzip",
        "--create",
        "--file",
    ]);
    output_of(tar.arg(&archive).arg(&name).current_dir(dist))?;
    fs::remove_dir_all(folder)?;
    Ok(archive)
}

fn examples(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("packaging/examples");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        files.push(entry?.path());
    }
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

fn copy_into(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    fs::copy(file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

fn write_sums<'a>(folder: &Path, files: impl Iterator<Item = &'a OsStr>) -> Result<()> {
    let mut files: Vec<_> = files.collect();
    files.sort();
    let sums = output_of(Command::new("sha256sum").args(files).current_dir(folder))?;
    Ok(fs::write(folder.join("SHA256SUMS"), sums + "\n")?)
}
