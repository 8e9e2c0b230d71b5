//! Where state is pinned, and how it is removed.
//!
//! `<bpffs>/weir/v2/{maps,progs,links/<interface>,forward/<interface>}`. bpffs keeps dots in names for itself, and interface names
//! may have them (`eth0.100`) but never colons, so a colon stands for a dot.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use proxy_common::names;
use serde::Serialize;

use super::{
    KernelFault,
    sys::{clsact, program::Program},
};

/// Beside [`names::LINKS`]: the attachments that forward, by interface. A gate's may be there without one, and the other way
/// round.
const FORWARDS: &str = "forward";

/// Follows a link's name while it waits to take the place of another.
const INCOMING: &str = "::incoming";

/// Held for as long as a daemon looks after the pins; ends with its process, however that ends. Whoever gets the file from it holds
/// it too: it ends when the last of them closes it.
#[derive(Debug)]
pub(super) struct Lock(File);

#[derive(Debug, Clone)]
pub(super) struct Pins {
    bpffs: PathBuf,
    root: PathBuf,
}

/// Another version's pins: its attachments are taken over, and nothing else of it is read.
#[derive(Debug)]
pub(super) struct OtherLayout {
    pub name: String,
    pub pins: Pins,
    /// Whoever looks after them has to end first.
    _lock: Lock,
}

/// What [`super::unload`] removed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Unloaded {
    /// Interfaces that were guarded.
    pub interfaces: Vec<String>,
    pub programs: usize,
    pub maps: usize,
}

impl Lock {
    /// For a successor, who holds it from then on too.
    pub(super) fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

impl Pins {
    pub(super) fn below(bpffs: &Path) -> Self {
        let root = bpffs.join(names::ROOT).join(names::LAYOUT);
        Self { bpffs: bpffs.to_owned(), root }
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join(names::MAPS).join(name)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.root.join(names::PROGRAMS).join(name)
    }

    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.links().join(interface.replace('.', ":"))
    }

    /// Where a link waits until it takes the place of [`Self::link`].
    pub(super) fn incoming_link(&self, interface: &str) -> PathBuf {
        self.links().join(interface.replace('.', ":") + INCOMING)
    }

    /// The folder of the links of `translate_tc`.
    pub(super) fn translate_links(&self) -> PathBuf {
        self.root.join(names::TRANSLATE_LINKS)
    }

    /// The folders that `translate_tc` needs. Whoever looks after the gate's has the lock for these too.
    pub(super) fn ensure_translate(&self) -> Result<(), KernelFault> {
        self.check_mounted()?;
        for folder in [names::MAPS, names::PROGRAMS, names::TRANSLATE_LINKS] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder)
                .map_err(|error| KernelFault::system(format!("make {}", folder.display()), error))?;
        }
        Ok(())
    }

    /// Interfaces that have a link of `translate_tc` pinned.
    pub(super) fn translate_linked(&self) -> Result<Vec<String>, KernelFault> {
        Ok(names_in(&self.translate_links())?.iter().map(|name| name.replace(':', ".")).collect())
    }

    /// Interfaces that have a link pinned.
    pub(super) fn linked(&self) -> Result<Vec<String>, KernelFault> {
        let names = names_in(&self.links())?;
        Ok(names.iter().filter(|name| !name.ends_with(INCOMING)).map(|name| name.replace(':', ".")).collect())
    }

    /// Interfaces that its programs guard: by links, or by filters at clsact, which nothing is pinned for.
    pub(super) fn guarded(&self) -> Result<Vec<String>, KernelFault> {
        let mut guarded = self.linked()?;
        let folder = self.root.join(names::PROGRAMS);
        let id = |name: &String| Program::open(&folder.join(name)).and_then(|program| program.id());
        // One that can't be opened is not what a filter holds.
        let programs: Vec<u32> = names_in(&folder)?.iter().filter_map(|name| id(name).ok()).collect();
        let filters = clsact::all(clsact::GATE)
            .map_err(|error| KernelFault::system("read the filters at clsact", error))?;
        let held = filters.into_iter().filter(|(_, filter)| programs.contains(&filter.program_id));
        guarded.extend(held.map(|(name, _)| name));
        guarded.sort_unstable();
        guarded.dedup();
        Ok(guarded)
    }

    /// Makes the folders and takes them for this process. What a predecessor that was killed left half done is
    /// removed.
    pub(super) fn ensure(&self, handed: Option<&File>) -> Result<Lock, KernelFault> {
        self.check_mounted()?;
        for folder in [names::MAPS, names::PROGRAMS, names::LINKS] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder)
                .map_err(|error| KernelFault::system(format!("make {}", folder.display()), error))?;
        }
        let lock = self.lock(handed)?;
        for name in names_in(&self.links())?.iter().filter(|name| name.ends_with(INCOMING)) {
            remove(&self.links().join(name))?;
        }
        Ok(lock)
    }

    /// One daemon at a time: two would swap each other's lists away. `handed`: what a predecessor holds it by, who stands still.
    pub(super) fn lock(&self, handed: Option<&File>) -> Result<Lock, KernelFault> {
        let failed =
            |doing: &str, error| KernelFault::system(format!("{doing} {}", self.root.display()), error);
        let folder = File::open(&self.root).map_err(|error| failed("open", error))?;
        let is_it = |handed: &&File| {
            let (handed, folder) = (handed.metadata(), folder.metadata());
            matches!((handed, folder), (Ok(handed), Ok(folder)) if handed.ino() == folder.ino() && handed.dev() == folder.dev())
        };
        let folder = match handed.filter(is_it) {
            Some(handed) => handed.try_clone().map_err(|error| failed("lock", error))?,
            None => folder,
        };
        match folder.try_lock() {
            Ok(()) => Ok(Lock(folder)),
            Err(TryLockError::WouldBlock) => Err(KernelFault::Taken { path: self.root.clone() }),
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }

    /// The names of other versions' layouts that are pinned here.
    pub(super) fn other_layouts(&self) -> Result<Vec<String>, KernelFault> {
        let is_layout = |name: &str| {
            let number = name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
            number && name != names::LAYOUT && self.of_layout(name).root.is_dir()
        };
        let names = names_in(&self.bpffs.join(names::ROOT))?;
        Ok(names.into_iter().filter(|name| is_layout(name)).collect())
    }

    /// Those layouts, taken for this process.
    pub(super) fn take_other_layouts(&self, handed: Option<&File>) -> Result<Vec<OtherLayout>, KernelFault> {
        let take = |name: String| {
            let pins = self.of_layout(&name);
            Ok(OtherLayout { _lock: pins.lock(handed)?, name, pins })
        };
        self.other_layouts()?.into_iter().map(take).collect()
    }

    /// The pins of another layout beside these.
    pub(super) fn of_layout(&self, layout: &str) -> Self {
        Self { bpffs: self.bpffs.clone(), root: self.bpffs.join(names::ROOT).join(layout) }
    }

    pub(super) fn exist(&self) -> Result<bool, KernelFault> {
        self.check_mounted()?;
        Ok(!names_in(&self.root.join(names::MAPS))?.is_empty())
    }

    /// Of every layout, links first: nothing is enforced any more from there on, and nothing half.
    pub(super) fn remove(&self) -> Result<Unloaded, KernelFault> {
        self.check_mounted()?;
        let mut unloaded = Unloaded::default();
        let others = self.other_layouts()?.into_iter().map(|name| self.of_layout(&name));
        let layouts: Vec<_> = std::iter::once(self.clone()).chain(others).collect();
        for layout in &layouts {
            unloaded.interfaces.extend(layout.linked()?);
            remove_all_in(&layout.links())?;
            remove_all_in(&layout.forwards())?;
        }
        for ours in [clsact::GATE, clsact::FORWARD, clsact::TRANSLATE] {
            let filters = clsact::all(ours)
                .map_err(|error| KernelFault::system("read the filters at clsact", error))?;
            for (name, filter) in filters {
                let failed =
                    |error| KernelFault::system(format!("delete the filter at clsact of `{name}`"), error);
                filter.delete().map_err(failed)?;
                unloaded.interfaces.push(name);
            }
        }
        unloaded.interfaces.sort_unstable();
        unloaded.interfaces.dedup();
        for layout in &layouts {
            let (programs, maps) = layout.remove_layout()?;
            unloaded.programs += programs;
            unloaded.maps += maps;
        }
        // Somebody may have put something of their own there.
        match fs::remove_dir(self.bpffs.join(names::ROOT)) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(KernelFault::system("remove the folder of pins", error)),
        }
        Ok(unloaded)
    }

    /// The pins of this layout alone. Says how many programs and maps there were.
    pub(super) fn remove_layout(&self) -> Result<(usize, usize), KernelFault> {
        remove_all_in(&self.links())?;
        remove_all_in(&self.forwards())?;
        remove_all_in(&self.translate_links())?;
        let programs = remove_all_in(&self.root.join(names::PROGRAMS))?;
        let maps = remove_all_in(&self.root.join(names::MAPS))?;
        remove_folder(&self.root)?;
        Ok((programs, maps))
    }

    fn links(&self) -> PathBuf {
        self.root.join(names::LINKS)
    }

    fn forwards(&self) -> PathBuf {
        self.root.join(FORWARDS)
    }

    /// Where the attachment that forwards on an interface is pinned.
    pub(super) fn forward(&self, interface: &str) -> PathBuf {
        self.forwards().join(interface.replace('.', ":"))
    }

    /// Interfaces on which something forwards, by what is pinned.
    pub(super) fn forwarding(&self) -> Result<Vec<String>, KernelFault> {
        Ok(names_in(&self.forwards())?.iter().map(|name| name.replace(':', ".")).collect())
    }

    /// Makes the folder for what [`Self::forward`] pins.
    pub(super) fn ensure_forwards(&self) -> Result<(), KernelFault> {
        let folder = self.forwards();
        fs::create_dir_all(&folder)
            .map_err(|error| KernelFault::system(format!("make {}", folder.display()), error))
    }

    fn check_mounted(&self) -> Result<(), KernelFault> {
        match statfs(&self.bpffs) {
            Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => Ok(()),
            Ok(_) | Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {
                Err(KernelFault::BpffsNotMounted { path: self.bpffs.clone() })
            }
            Err(error) => Err(KernelFault::system(format!("look at {}", self.bpffs.display()), error.into())),
        }
    }
}

/// Removes a pin; that it isn't there is as good.
pub(super) fn remove(path: &Path) -> Result<(), KernelFault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelFault::system(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn remove_all_in(folder: &Path) -> Result<usize, KernelFault> {
    let names = names_in(folder)?;
    for name in &names {
        remove(&folder.join(name))?;
    }
    remove_folder(folder)?;
    Ok(names.len())
}

fn remove_folder(folder: &Path) -> Result<(), KernelFault> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelFault::system(format!("remove {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

/// Sorted; none when the folder isn't there.
fn names_in(folder: &Path) -> Result<Vec<String>, KernelFault> {
    let failed = |error| KernelFault::system(format!("read {}", folder.display()), error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        names.extend(OsStr::to_str(&entry.file_name()).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_interface_has_a_pin_that_bpffs_accepts() {
        let pins = Pins::below(Path::new("/sys/fs/bpf"));
        assert_eq!(pins.link("eth0.100"), Path::new("/sys/fs/bpf/weir/v2/links/eth0:100"));
    }

    #[test]
    fn a_folder_that_is_not_bpffs_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let fault = Pins::below(folder.path()).ensure(None).unwrap_err();
        let path = folder.path().display();
        assert_eq!(fault.to_string(), format!("bpffs is not mounted at {path}: `mount -t bpf bpf {path}`"));
    }
}
