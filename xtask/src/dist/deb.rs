//! The Debian package, put together by dpkg-deb from the static binary and `packaging/debian`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{VERSION, copy_into, examples};
use crate::workspace::{Workspace, output_of};

pub fn build(workspace: &Workspace, dist: &Path, weir: &Path) -> Result<PathBuf> {
    let architecture = output_of(Command::new("dpkg").arg("--print-architecture"))
        .context("a Debian package is made with dpkg, which is not here")?;
    let name = format!("weir_{VERSION}_{architecture}.deb");
    let tree = dist.join("deb");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fill(workspace, &tree, weir)?;
    control(workspace, &tree, &architecture)?;
    let package = dist.join(name);
    output_of(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).args([&tree, &package]))?;
    fs::remove_dir_all(tree)?;
    Ok(package)
}

fn fill(workspace: &Workspace, tree: &Path, weir: &Path) -> Result<()> {
    let documents = tree.join("usr/share/doc/weir");
    for (folder, mode) in [
        ("usr/bin", 0o755),
        ("lib/systemd/system", 0o755),
        ("usr/share/doc/weir/examples", 0o755),
        // Keys of certificates lie in here.
        ("etc/weir", 0o750),
    ] {
        fs::create_dir_all(tree.join(folder))?;
        fs::set_permissions(tree.join(folder), Permissions::from_mode(mode))?;
    }
    copy_into(weir, &tree.join("usr/bin"))?;
    copy_into(&workspace.root.join("packaging/weir.service"), &tree.join("lib/systemd/system"))?;
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "packaging/debian/copyright"] {
        copy_into(&workspace.root.join(file), &documents)?;
    }
    for example in examples(workspace)? {
        copy_into(&example, &documents.join("examples"))?;
    }
    for (shell, file) in [
        ("bash", "usr/share/bash-completion/completions/weir"),
        ("zsh", "usr/share/zsh/vendor-completions/_weir"),
        ("fish", "usr/share/fish/vendor_completions.d/weir.fish"),
    ] {
        let file = tree.join(file);
        fs::create_dir_all(file.parent().context("a file in a folder")?)?;
        fs::write(file, output_of(Command::new(weir).args(["completions", shell]))? + "\n")?;
    }
    let manual = tree.join("usr/share/man/man1");
    output_of(Command::new(weir).arg("manual").arg(&manual))?;
    for page in fs::read_dir(&manual)? {
        output_of(Command::new("gzip").args(["-9", "--no-name"]).arg(page?.path()))?;
    }
    Ok(())
}

fn control(workspace: &Workspace, tree: &Path, architecture: &str) -> Result<()> {
    let source = workspace.root.join("packaging/debian");
    let folder = tree.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    let control = fs::read_to_string(source.join("control")).context("packaging/debian/control")?;
    fs::write(
        folder.join("control"),
        control.replace("@VERSION@", VERSION).replace("@ARCHITECTURE@", architecture),
    )?;
    for script in ["postinst", "prerm", "postrm"] {
        copy_into(&source.join(script), &folder)?;
        fs::set_permissions(folder.join(script), Permissions::from_mode(0o755))?;
    }
    Ok(())
}
