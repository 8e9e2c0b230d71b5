//! A configuration on trial: one that `weir apply --confirm` put in place, and that goes again unless somebody says
//! `weir confirm` in time. What is needed to take it back is on disk beside the configuration, so that it outlives the
//! daemon and the host: the daemon itself takes it back, or the next one at its start, or the watchdog where there is
//! none.
//!
//! `weir.toml.trial` is the trial, with the text to go back to; `weir.toml.previous` is what stood there before the last
//! `weir apply`; `weir.toml.reverted` is what the last trial that failed had in its place. Not the state folder: where
//! that is stands in the configuration, and a trial must be found before any configuration is read.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Tells one trial from the next: a watchdog looks after its own only.
    pub id: u64,
    /// The file that was applied, as the operator called it.
    pub name: String,
    /// How long it may go unconfirmed.
    pub milliseconds: u64,
    /// When that is over, in milliseconds since 1970: it must hold over a reboot.
    pub deadline: i64,
    /// The configuration to go back to.
    pub previous: String,
}

/// The trial's file, locked: nobody else takes it back or ends it meanwhile.
#[derive(Debug)]
pub struct Claimed {
    pub trial: Trial,
    path: PathBuf,
    _lock: Flock<File>,
}

/// Where the trial of a configuration is kept.
pub fn path(config: &Path) -> PathBuf {
    beside(config, "trial")
}

/// The configuration that stood there before the last `weir apply`.
pub fn previous(config: &Path) -> PathBuf {
    beside(config, "previous")
}

/// The configuration that was taken back.
pub fn reverted(config: &Path) -> PathBuf {
    beside(config, "reverted")
}

fn beside(config: &Path, what: &str) -> PathBuf {
    let mut name = config.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

// === impl Trial ===

impl Trial {
    pub fn new(id: u64, name: String, time: Duration, previous: String, now: i64) -> Self {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let deadline = now.saturating_add(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        Self { id, name, milliseconds, deadline, previous }
    }

    /// What is left of its time. Never more than it had: a clock that was set back must not make it last.
    pub fn left(&self, now: i64) -> Duration {
        let left = u64::try_from(self.deadline.saturating_sub(now)).unwrap_or(0);
        Duration::from_millis(left.min(self.milliseconds))
    }

    /// Keeps it on disk, for certain when this returns.
    pub fn store(&self, config: &Path) -> io::Result<()> {
        write_whole(&path(config), &serde_json::to_vec(self)?, 0o600)
    }

    /// The trial of this configuration, if there is one.
    ///
    /// # Errors
    /// When there is one that can't be read.
    pub fn read(config: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(config)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

// === impl Claimed ===

impl Claimed {
    /// Waits until nobody else holds the trial. `None`: there is none, or not any more.
    ///
    /// # Errors
    /// When its file can't be used.
    pub fn of(config: &Path) -> io::Result<Option<Self>> {
        let path = path(config);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
        if !std::fs::metadata(&path).is_ok_and(|now| now.ino() == inode) {
            return Ok(None);
        }
        let trial = Trial::read(config)?;
        Ok(trial.map(|trial| Self { trial, path, _lock: lock }))
    }

    /// Puts the previous configuration back. What stood there is kept as `.reverted`. The trial stays, until it
    /// [ends](Self::end).
    pub fn restore(&self, config: &Path) -> io::Result<()> {
        let mode = mode(config);
        match std::fs::read(config) {
            Ok(now) if now != self.trial.previous.as_bytes() => {
                write_whole(&reverted(config), &now, mode)?;
            }
            _ => {}
        }
        write_whole(config, self.trial.previous.as_bytes(), mode)
    }

    pub fn end(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        sync_folder(&self.path)
    }
}

/// The permissions of a file that is to be replaced.
pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(0o640, |about| about.permissions().mode() & 0o7777)
}

/// Replaces a file in one step, and for good: a crash leaves the old one or the new one.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = beside(path, "new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn trial(now: i64) -> Trial {
        Trial::new(7, "new.toml".into(), Duration::from_secs(60), "before".into(), now)
    }

    #[test]
    fn the_time_that_is_left_outlives_a_reboot_and_a_clock_that_jumps() {
        let trial = trial(1_000_000);
        assert_eq!(trial.left(1_000_000), Duration::from_secs(60));
        assert_eq!(trial.left(1_059_999), Duration::from_millis(1));
        assert_eq!(trial.left(9_000_000), Duration::ZERO);
        assert_eq!(trial.left(0), Duration::from_secs(60), "set back, it lasts no longer than it would have");
    }

    #[test]
    fn what_was_stored_is_found_and_restored_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("weir.toml");
        fs::write(&config, "after").unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o604)).unwrap();
        assert_eq!(Trial::read(&config).unwrap(), None);
        assert!(Claimed::of(&config).unwrap().is_none());

        trial(5).store(&config).unwrap();
        assert_eq!(Trial::read(&config).unwrap(), Some(trial(5)));
        assert_eq!(mode(&path(&config)), 0o600, "it holds a whole configuration");
        let claimed = Claimed::of(&config).unwrap().unwrap();
        claimed.restore(&config).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "before");
        assert_eq!(mode(&config), 0o604);
        assert_eq!(fs::read_to_string(reverted(&config)).unwrap(), "after");
        claimed.end().unwrap();
        assert_eq!(Trial::read(&config).unwrap(), None);
    }

    #[test]
    fn who_waits_for_a_trial_that_another_one_ends_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("weir.toml");
        trial(5).store(&config).unwrap();
        let claimed = Claimed::of(&config).unwrap().unwrap();
        let waiting = std::thread::spawn({
            let config = config.clone();
            move || Claimed::of(&config).unwrap().is_none()
        });
        claimed.end().unwrap();
        assert!(waiting.join().unwrap());
    }
}
