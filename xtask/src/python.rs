//! Peers that come from PyPI, in a folder of our own: the system's Python stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{packages, progress};

/// What tests run: an HTTP/3 implementation that shares no code with ours, what a receiver of spans is made of, and the
/// reference reader of OpenMetrics.
const FOR_LABS: &[&str] =
    &["aioquic==1.3.0", "grpcio==1.85.1", "opentelemetry-proto==1.45.2", "prometheus-client==0.26.0"];

/// The interpreter that knows the peers, once [`ensure`] has passed.
pub fn interpreter(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("bin/python3")
}

/// Whether everything in [`FOR_LABS`] was installed, in these versions.
pub fn is_ready(workspace: &Workspace) -> bool {
    fs::read_to_string(receipt(workspace)).is_ok_and(|installed| installed == FOR_LABS.join("\n"))
}

/// Makes the folder and installs into it; quick when it was done before.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    if is_ready(workspace) {
        return Ok(());
    }
    let folder = folder(workspace);
    if folder.exists() {
        // Of an older version, or left half done.
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    make_environment(&folder)?;
    let mut pip = Command::new(interpreter(workspace));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(FOR_LABS);
    progress::step(&format!("installing {} from PyPI", FOR_LABS.join(" ")), &mut pip)?;
    // Last, so that what broke off before is done anew.
    fs::write(receipt(workspace), FOR_LABS.join("\n"))
        .with_context(|| format!("cannot write to {}", folder.display()))
}

pub fn wanted() -> String {
    FOR_LABS.join(" ")
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools.join("python")
}

fn receipt(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("installed")
}

fn make_environment(folder: &Path) -> Result<()> {
    let make = |python: PathBuf| {
        let mut venv = Command::new(python);
        venv.args(["-m", "venv"]).arg(folder);
        progress::step("making a folder for Python packages", &mut venv)
    };
    if packages::find("python3").is_some_and(|python| make(python).is_ok()) {
        return Ok(());
    }
    // Debian keeps what a new environment needs in a package of its own, which serves Debian's Python only.
    packages::install(&["python3", "python3-venv"])?;
    make("/usr/bin/python3".into())
}
