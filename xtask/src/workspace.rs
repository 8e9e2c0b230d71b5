//! Where things are: the repository, its target directory, and the tools that all clones of a user share.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    /// Outside the repository: a second clone does not build the linker again.
    pub tools: PathBuf,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("xtask has no parent folder")?.to_owned();
        Ok(Self { target: target_directory(&root)?, tools: tools_directory()?, root })
    }

    /// The cargo that runs us, in the workspace's root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(host_cargo());
        command.current_dir(&self.root);
        command
    }

    /// Where `cargo xtask build` leaves the linked kernel programs.
    pub fn ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/weir-ebpf.o")
    }

    /// The same with the programs that log.
    pub fn telling_ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/weir-ebpf-log.o")
    }

    /// A path as short as it can be said.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// What a command printed, trimmed; an error if it did not succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn host_cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Asked of cargo, which knows `CARGO_TARGET_DIR` and the user's own configuration.
fn target_directory(root: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new(host_cargo());
    cargo.current_dir(root).args(["metadata", "--no-deps", "--format-version=1"]);
    let metadata: serde_json::Value = serde_json::from_str(&output_of(&mut cargo)?)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

fn tools_directory() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("WEIR_TOOLS")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("weir")))
        .or_else(|| Some(set("HOME")?.join(".cache/weir")))
        .context("neither WEIR_TOOLS nor HOME is set: there is no folder for the tools")?;
    std::path::absolute(folder).context("the folder for the tools")
}
