//! What a VM holds: busybox, `ip`, `weir`, the tests, the libraries that these ask for, and an init that runs
//! each test by itself and writes what came of it to the second serial port.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use super::fetch::Fetched;
use crate::packages;
use crate::workspace::output_of;

const INIT: &str = include_str!("init.sh");

/// Folders that are there and empty, besides those of files.
const FOLDERS: [&str; 8] = ["dev", "proc", "sys", "tmp", "run", "etc", "root", "var"];

pub fn write(to: &Path, kernel: &Fetched, weir: &Path, tests: &[PathBuf], filters: &[String]) -> Result<()> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    // A pattern of the shell's.
    let wanted: Vec<String> = filters.iter().map(|part| format!("*{part}*")).collect();
    let wanted = if wanted.is_empty() { "*".to_owned() } else { wanted.join("|") };
    files.insert("init".into(), INIT.replace("@FILTER@", &wanted).into_bytes());
    files.insert(
        "etc/passwd".into(),
        b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n".to_vec(),
    );

    let busybox = packages::find("busybox").context("busybox is absent")?;
    files.insert("bin/busybox".into(), read(&busybox)?);
    let mut programs = vec![("weir/weir".to_owned(), weir.to_owned())];
    // busybox has lesser ones of the first and the last.
    for name in ["ip", "bpftool", "setpriv", "ethtool", "nft"] {
        let program = packages::find(name).with_context(|| format!("{name} is absent"))?;
        programs.push((format!("sbin/{name}"), program));
    }
    for test in tests {
        programs.push((format!("tests/{}", test_name(test)?), test.clone()));
    }
    let mut libraries = BTreeSet::new();
    for (name, path) in programs {
        libraries.extend(libraries_of(&path)?);
        files.insert(name, read(&path)?);
    }
    for library in libraries {
        files.insert(library.to_string_lossy().trim_start_matches('/').to_owned(), read(&library)?);
    }
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        order.push_str(&name);
        order.push('\n');
        files.insert(format!("modules/{name}"), read(module)?);
    }
    files.insert("modules/order".into(), order.into_bytes());

    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in folders(&files) {
        archive.folder(&folder)?;
    }
    for (name, content) in &files {
        archive.file(name, content)?;
    }
    archive.finish()?.into_inner()?.sync_all().context("cannot write the initramfs")
}

/// All folders of `files`, each after its parent.
fn folders(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let mut folders: BTreeSet<String> = FOLDERS.map(str::to_owned).into();
    for name in files.keys() {
        folders.extend(name.match_indices('/').map(|(end, _)| name[..end].to_owned()));
    }
    folders
}

/// `…/deps/gate_packets-0123456789abcdef` → `gate_packets`
fn test_name(path: &Path) -> Result<String> {
    let file = path.file_name().context("a test has a name")?.to_string_lossy().into_owned();
    Ok(file.rsplit_once('-').map_or(file.clone(), |(name, _)| name.to_owned()))
}

/// The loader and the libraries of a dynamic program.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = output_of(Command::new("ldd").arg(program))
        .with_context(|| format!("cannot tell the libraries of {}", program.display()))?;
    let paths = listed.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path).split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    Ok(paths.collect())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
