//! Debian's kernels, unpacked into the tools folder and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Kernel;
use crate::workspace::{Workspace, output_of};
use crate::{packages, progress};

/// What the tests need and Debian builds as modules, in an order in which each finds what it depends on. Those
/// that a kernel has built in are not there as files.
const MODULES: [&str; 27] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
    "veth",
    "llc",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "bridge",
    "tls",
    "bonding",
    "dummy",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "crc32c_generic",
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
    "nft_numgen",
];

/// The file that says which modules were looked for when the folder was filled.
const LISTED: &str = "modules.listed";

pub struct Fetched {
    pub vmlinuz: PathBuf,
    /// In the order of loading.
    pub modules: Vec<PathBuf>,
}

/// The newest build of a kernel that the package lists know; from the tools folder if it is there already.
pub fn kernel(workspace: &Workspace, kernel: &Kernel) -> Result<Fetched> {
    let package = image_package(kernel)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let folder = workspace.tools.join("kernels").join(&release);
    // An earlier version of this may have wanted fewer modules.
    let is_whole = fs::read_to_string(folder.join(LISTED)).is_ok_and(|listed| listed == MODULES.join("\n"));
    if !is_whole {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        unpack(&package, &release, &folder)?;
    }
    let modules = MODULES.iter().map(|name| folder.join(format!("{name}.ko"))).filter(|file| file.exists());
    Ok(Fetched { vmlinuz: folder.join("vmlinuz"), modules: modules.collect() })
}

/// `linux-image-amd64` → `linux-image-6.1.0-56-amd64`
fn image_package(kernel: &Kernel) -> Result<String> {
    let depends = || output_of(Command::new("apt-cache").args(["depends", kernel.package]));
    let named = match depends() {
        Ok(text) => text,
        Err(_) => {
            packages::refresh_package_lists()?;
            depends().with_context(|| format!("this Debian has no package {}", kernel.package))?
        }
    };
    let begins = format!("linux-image-{}.", kernel.line);
    named
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with(&begins))
        .map(str::to_owned)
        .with_context(|| format!("{} of this Debian is no kernel {}", kernel.package, kernel.line))
}

fn unpack(package: &str, release: &str, folder: &Path) -> Result<()> {
    // Beside it, then renamed: a download that breaks off leaves nothing that looks whole.
    let unfinished = folder.with_extension(format!("unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    let done = unpack_into(package, release, &unfinished);
    let done = done.and_then(|()| {
        if folder.exists() {
            return Ok(());
        }
        fs::rename(&unfinished, folder).with_context(|| format!("cannot make {}", folder.display()))
    });
    let _ = fs::remove_dir_all(&unfinished);
    done
}

fn unpack_into(package: &str, release: &str, folder: &Path) -> Result<()> {
    let title = format!("downloading {package}");
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.args(["download", package]).current_dir(folder);
        apt
    };
    if progress::step(&title, &mut download()).is_err() {
        // The lists may name a build that the server has replaced since.
        packages::refresh_package_lists()?;
        progress::step(&title, &mut download())?;
    }
    let archive = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    let tree = folder.join("tree");
    progress::step(&format!("unpacking {package}"), Command::new("dpkg").arg("-x").arg(&archive).arg(&tree))?;
    fs::rename(tree.join("boot").join(format!("vmlinuz-{release}")), folder.join("vmlinuz"))
        .with_context(|| format!("{package} brought no kernel"))?;
    gather_modules(&tree, folder)?;
    fs::remove_dir_all(tree)?;
    fs::write(folder.join(LISTED), MODULES.join("\n"))?;
    Ok(fs::remove_file(archive)?)
}

fn gather_modules(within: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(within)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            gather_modules(&path, folder)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((module, kind)) = name.split_once('.') else { continue };
        if !MODULES.contains(&module) {
            continue;
        }
        let target = folder.join(format!("{module}.ko"));
        match kind {
            "ko" => fs::copy(&path, target).map(drop)?,
            "ko.xz" => {
                let unpacked = Command::new("busybox").arg("xzcat").arg(&path).output()?;
                anyhow::ensure!(unpacked.status.success(), "cannot unpack {}", path.display());
                fs::write(target, unpacked.stdout)?;
            }
            _ => {}
        }
    }
    Ok(())
}
