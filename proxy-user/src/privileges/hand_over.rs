//! What root gives to the user that the daemon becomes: the folders that are Weir's own.
//!
//! Never more than that, and never through a link: whoever has taken the daemon over may have put links where root will
//! look at the next start. Files with a second name and files of other users stay whose they are.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use proxy_common::names;

use super::{PrivilegeFault, account::Account};
use crate::config::model::{AdminAddr, Config, KernelMode};

/// Folders of this name are taken for Weir's own, wherever they are.
const OWN: &str = "weir";

/// Pins are three folders deep, state is flat but for certificates.
const DEEPEST: usize = 8;

/// What was given away.
#[derive(Debug, Clone, Default)]
pub struct HandedOver {
    pub paths: Vec<PathBuf>,
    /// Where others were allowed to pass through, so that the pins below can be reached.
    pub opened: Option<PathBuf>,
}

/// Gives all of Weir's own folders to the user in `[process]`, or to `user`; for `weir kernel hand-over`.
///
/// # Errors
/// When there is no such user, or a folder can't be given away.
pub fn hand_over(config: &Config, user: &str) -> Result<HandedOver, PrivilegeFault> {
    of(config, &Account::find(user, None)?)
}

pub(super) fn of(config: &Config, to: &Account) -> Result<HandedOver, PrivilegeFault> {
    let mut done = HandedOver::default();
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |error| PrivilegeFault::HandOver { path, user: to.name.clone(), error }
    };
    if config.kernel.mode != KernelMode::Off {
        pins(&config.kernel.bpffs, to, &mut done).map_err(fault(&config.kernel.bpffs))?;
    }
    own(&config.state.dir, to, &mut done).map_err(fault(&config.state.dir))?;
    for addr in &config.admin.bind {
        if let AdminAddr::Unix(socket) = addr
            && let Some(folder) = socket.parent()
        {
            named(folder, to, &mut done).map_err(fault(folder))?;
        }
    }
    for (_, log) in config.log.files() {
        if let Some(folder) = log.parent() {
            named(folder, to, &mut done).map_err(fault(folder))?;
        }
        file(log, to, &mut done).map_err(fault(log))?;
    }
    Ok(done)
}

/// The folder of pins, made if need be. systemd mounts bpffs for root alone; who may pass through it can still list
/// nothing there, and open nothing that isn't his.
fn pins(bpffs: &Path, to: &Account, done: &mut HandedOver) -> io::Result<()> {
    // Without it there is no gate, which is told elsewhere.
    if !statfs(bpffs).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    let mount = fs::metadata(bpffs)?;
    if mount.uid() != to.uid.as_raw() && mount.mode() & 0o001 == 0 {
        fs::set_permissions(bpffs, fs::Permissions::from_mode(mount.mode() & 0o7777 | 0o011))?;
        done.opened = Some(bpffs.to_owned());
    }
    own(&bpffs.join(names::ROOT), to, done)
}

/// A folder that is Weir's by what it is for, with what is in it. Made if need be.
fn own(folder: &Path, to: &Account, done: &mut HandedOver) -> io::Result<()> {
    make(folder)?;
    give_all(folder, to, 0, done)
}

/// The same for a folder that may as well be everybody's: only if it is called `weir`.
fn named(folder: &Path, to: &Account, done: &mut HandedOver) -> io::Result<()> {
    if folder.file_name().is_some_and(|name| name == OWN) {
        make(folder)?;
        give(folder, to, done)?;
    }
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o750).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// A file that is to be written: made here, where root may.
fn file(path: &Path, to: &Account, done: &mut HandedOver) -> io::Result<()> {
    let made =
        OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path);
    match made {
        Ok(_) => give(path, to, done),
        // A link, a pipe, a folder that isn't there: whoever opens it will say.
        Err(_) => Ok(()),
    }
}

fn give_all(folder: &Path, to: &Account, depth: usize, done: &mut HandedOver) -> io::Result<()> {
    give(folder, to, done)?;
    let entries = match fs::read_dir(folder) {
        // Root without all of its capabilities: what can't be looked into was given away before.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < DEEPEST {
            give_all(&entry.path(), to, depth + 1, done)?;
        } else if kind.is_file() {
            give(&entry.path(), to, done)?;
        }
    }
    Ok(())
}

/// Root's folder or file, and nobody else's.
fn give(path: &Path, to: &Account, done: &mut HandedOver) -> io::Result<()> {
    // Pins can't be opened as files, not even like this; folders and files can.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let (found, file): (_, Option<File>) = match opened {
        Ok(file) => (file.metadata()?, Some(file)),
        Err(_) => (fs::symlink_metadata(path)?, None),
    };
    let second_name = !found.is_dir() && found.nlink() > 1;
    if found.file_type().is_symlink() || found.uid() != 0 || second_name {
        return Ok(());
    }
    let (uid, gid) = (Some(to.uid.as_raw()), Some(to.gid.as_raw()));
    match file {
        Some(file) => fchown(file, uid, gid)?,
        None => std::os::unix::fs::lchown(path, uid, gid)?,
    }
    done.paths.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn links_and_files_with_a_second_name_stay_whose_they_are() {
        if !geteuid().is_root() {
            // Only root can give anything away.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("state")).unwrap();
        fs::write(at("shadow"), "").unwrap();
        fs::write(at("state/drains.json"), "").unwrap();
        fs::hard_link(at("shadow"), at("state/hard")).unwrap();
        std::os::unix::fs::symlink(at("shadow"), at("state/soft")).unwrap();
        let to = Account::find("61777", None).unwrap();
        let mut done = HandedOver::default();
        own(&at("state"), &to, &mut done).unwrap();
        let owner = |name: &str| fs::symlink_metadata(at(name)).unwrap().uid();
        assert_eq!(
            [owner("state"), owner("state/drains.json"), owner("state/soft"), owner("shadow")],
            [61777, 61777, 0, 0]
        );
    }

    #[test]
    fn a_folder_that_may_be_everybodys_is_given_away_only_by_its_name() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let to = Account::find("61777", None).unwrap();
        let mut done = HandedOver::default();
        named(&folder.path().join("weir"), &to, &mut done).unwrap();
        named(folder.path(), &to, &mut done).unwrap();
        assert_eq!(done.paths, [folder.path().join("weir")]);
    }
}
