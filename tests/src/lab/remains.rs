//! What a lab leaves in the machine, and how all of it goes: when the lab is dropped, when its process is told to end,
//! and, after a SIGKILL, when the next lab is built.

use std::{
    collections::hash_map::RandomState,
    fs::File,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
    sync::Once,
};

use anyhow::Context;
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, umount2},
};

use super::{ip, namespace::HANDLES};

/// What every name of a lab begins with, before the id of its process.
const PREFIX: &str = "weir-";

/// What a lab leaves in the machine, and must take back: namespace handles, a mount, a folder.
#[derive(Debug)]
pub struct Remains {
    /// `weir-<pid>-<random>`, the beginning of the namespaces' names.
    pub name: String,
    pub folder: PathBuf,
}

impl Remains {
    /// A name for a new lab. Nothing bears it yet; the first one of a process sweeps.
    pub fn named() -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let name = format!("{PREFIX}{}-{:04x}", std::process::id(), random() & 0xffff);
        Self { folder: std::env::temp_dir().join(&name), name }
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        // Keeps a failed test's evidence when asked to.
        let kept = std::thread::panicking() && std::env::var_os("WEIR_LAB_KEEP").is_some();
        remove(&self.name, (!kept).then_some(&self.folder));
    }
}

/// Removes what labs of processes that are dead have left. Their programs died with them.
pub fn sweep() {
    remove_those_of(|pid| !Path::new(&format!("/proc/{pid}")).exists());
}

/// Removes the labs of this process, which is about to end without dropping them.
pub fn remove_all() {
    remove_those_of(|pid| pid == std::process::id());
}

/// Held by whoever makes or removes namespaces.
pub fn turn() -> anyhow::Result<Flock<File>> {
    let path = std::env::temp_dir().join("weir-lab.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, why)| anyhow::anyhow!("can't take the lab lock: {why}"))
}

/// Best effort, and complete where nothing is missing: what can't be removed now is swept later.
fn remove(lab: &str, folder: Option<&Path>) {
    if let Some(folder) = folder {
        let bpffs = folder.join("bpffs");
        // Lazily: a daemon may still be ending. The pins go with the last user.
        let _ = umount2(&bpffs, MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(folder);
    }
    let script: String = handles()
        .filter(|handle| handle.strip_prefix(lab).is_some_and(|rest| rest.starts_with('-')))
        .map(|handle| format!("netns del {handle}\n"))
        .collect();
    if !script.is_empty() {
        let _turn = turn();
        let _ = ip(&["-force", "-batch", "-"], &script);
    }
}

fn handles() -> impl Iterator<Item = String> {
    entries(Path::new(HANDLES))
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn remove_those_of(process: impl Fn(u32) -> bool) {
    let mut labs: Vec<String> = handles()
        .chain(entries(&std::env::temp_dir()))
        .filter_map(|name| {
            let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
            let pid: u32 = parts.next()?.parse().ok()?;
            let random = parts.next()?;
            process(pid).then(|| format!("{PREFIX}{pid}-{random}"))
        })
        .collect();
    labs.sort();
    labs.dedup();
    for lab in labs {
        remove(&lab, Some(&std::env::temp_dir().join(&lab)));
    }
}

/// Good enough to tell labs apart.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
