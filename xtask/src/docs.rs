//! The reference pages that the daemon writes about itself, and whether they are up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, check: bool) -> Result<ExitCode> {
    let built = build::all(workspace, Profile::Dev)?;
    let docs = workspace.root.join("docs");
    if !check {
        write(&built.weir, &docs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let fresh = workspace.target.join("generated-docs");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    // Its guide is written by hand; what stands below it is written anew.
    fs::create_dir_all(&fresh)?;
    fs::copy(docs.join("configuration.md"), fresh.join("configuration.md"))?;
    write(&built.weir, &fresh)?;
    let mut stale = false;
    for page in files_below(&fresh)? {
        let kept = docs.join(page.strip_prefix(&fresh)?);
        if fs::read(&page)? != fs::read(&kept).unwrap_or_default() {
            eprintln!("{} is out of date", workspace.shown(&kept));
            stale = true;
        }
    }
    if stale {
        eprintln!("`cargo xtask docs` writes the pages anew");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn write(weir: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let status = Command::new(weir).arg("docs").arg(folder).status()?;
    anyhow::ensure!(status.success(), "`weir docs` failed");
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
