//! Notices when a file that the configuration was read from changes.
//!
//! Folders are watched, not files: editors and Kubernetes replace files by renaming, and a watch on the file would
//! follow the old one. What decides is not the event but what the files are now, so that unrelated changes in the
//! same folder (a log, say) do nothing. Where no events come (NFS), a look every few seconds finds out too.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::ModifyKind};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// Files are read when nothing has changed for so long: whoever writes several does it in one go.
const QUIET: Duration = Duration::from_millis(50);

/// But no longer than so many times that: a log that is written in the same folder never falls quiet.
const PATIENCE: u32 = 4;

/// How often the files are looked at without an event.
const LOOK: Duration = Duration::from_secs(3);

/// Watches a changing set of files.
#[derive(Debug)]
pub struct Files {
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<()>,
    /// The names of the watched files, without their folders.
    names: Arc<Mutex<BTreeSet<OsString>>>,
    folders: BTreeSet<PathBuf>,
    seen: BTreeMap<PathBuf, Option<Mark>>,
    /// Something has changed that was not looked into yet: whoever waited for it to fall quiet was called away.
    stirred: bool,
    /// When to look without an event.
    next_look: Instant,
}

/// What tells one state of a file from another: size, modification time, inode.
type Mark = (u64, i64, i64, u64);

impl Files {
    /// Watches nothing yet.
    pub fn start() -> Self {
        let (send, events) = mpsc::unbounded_channel();
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let interesting = names.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let names = interesting.lock().unwrap_or_else(PoisonError::into_inner);
            if event.is_ok_and(|event| concerns(&event, &names)) {
                // The receiver is gone only when the daemon ends.
                let _ = send.send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "no file events here: changes are seen within 3 s"))
            .ok();
        Self {
            watcher,
            events,
            names,
            folders: BTreeSet::new(),
            seen: BTreeMap::new(),
            stirred: false,
            next_look: Instant::now() + LOOK,
        }
    }

    /// From now on, watches `files` (and no others), as they are now.
    pub fn watch(&mut self, files: &[PathBuf]) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) =
            files.iter().filter_map(|file| file.file_name()).map(ToOwned::to_owned).collect();
        self.seen = files.iter().map(|file| (file.clone(), mark(file))).collect();
        let folders: BTreeSet<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                // Fails when the folder itself is gone: then so is the watch.
                let _ = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.folders) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::debug!(folder = %new.display(), %error, "can't be watched");
                }
            }
        }
        self.folders = folders;
    }

    /// Takes the watched files as they are now for known.
    pub fn look(&mut self) {
        self.seen = self.now();
    }

    /// Whether a watched file is another than it was when it was last looked at.
    pub fn differ(&self) -> bool {
        self.now() != self.seen
    }

    fn now(&self) -> BTreeMap<PathBuf, Option<Mark>> {
        self.seen.keys().map(|file| (file.clone(), mark(file))).collect()
    }

    /// Resolves when a watched file is another than it was, or is gone, or has come. Safe to cancel, at any time and as
    /// often as one likes: what was noticed by then is remembered.
    pub async fn changed(&mut self) {
        loop {
            if !self.stirred {
                match timeout_at(self.next_look, self.events.recv()).await {
                    Ok(Some(())) => self.stirred = true,
                    // No events come here.
                    Ok(None) => sleep_until(self.next_look).await,
                    Err(_) => {}
                }
            }
            if self.stirred {
                let _ = timeout(QUIET * PATIENCE, self.quiet()).await;
            }
            self.stirred = false;
            self.next_look = Instant::now() + LOOK;
            let now = self.now();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn quiet(&mut self) {
        while let Ok(Some(())) = timeout(QUIET, self.events.recv()).await {}
    }
}

/// Writing to a file that isn't ours (a log in the same folder) is dismissed right here: it may happen thousands of
/// times a second. Coming, going and renaming is always looked into: a symbolic link may have changed its target.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_) | ModifyKind::Any) => {
            event.paths.iter().filter_map(|path| path.file_name()).any(|name| names.contains(name))
        }
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Other)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

/// Follows symbolic links: a swapped link is another file.
fn mark(file: &Path) -> Option<Mark> {
    let data = std::fs::metadata(file).ok()?;
    Some((data.size(), data.mtime(), data.mtime_nsec(), data.ino()))
}

/// Where events of a file come from. A folder that is a symbolic link is watched where it leads, and where it stands: it
/// may lead elsewhere tomorrow.
fn folders(file: &Path) -> Vec<PathBuf> {
    // By their real names: the same name may be another folder tomorrow.
    let real = |folder: &Path| folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let above = |file: &Path| {
        let parent = file.parent()?;
        Some(real(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }))
    };
    if !file.is_dir() {
        return above(file).into_iter().collect();
    }
    let link = file.is_symlink().then(|| above(file)).flatten();
    link.into_iter().chain([real(file)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn notices(change: impl FnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weir.toml");
        fs::write(&file, "a").unwrap();
        let mut files = Files::start();
        files.watch(std::slice::from_ref(&file));
        change(folder.path());
        timeout(Duration::from_millis(500), files.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_rewritten_a_renamed_and_a_removed_file_are_noticed() {
        assert!(notices(|folder| fs::write(folder.join("weir.toml"), "bb").unwrap()).await);
        assert!(notices(|folder| fs::remove_file(folder.join("weir.toml")).unwrap()).await);
        let replaced = notices(|folder| {
            fs::write(folder.join("new"), "b").unwrap();
            fs::rename(folder.join("new"), folder.join("weir.toml")).unwrap();
        });
        assert!(replaced.await);
    }

    #[tokio::test]
    async fn a_symbolic_link_that_leads_elsewhere_is_noticed() {
        // As Kubernetes does it: ..data is swapped, the file itself is never touched.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (version, text) in [("v1", "a"), ("v2", "b")] {
            fs::create_dir(path.join(version)).unwrap();
            fs::write(path.join(version).join("weir.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("v1", path.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/weir.toml", path.join("weir.toml")).unwrap();
        let mut files = Files::start();
        files.watch(&[path.join("weir.toml")]);
        std::os::unix::fs::symlink("v2", path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        assert!(timeout(Duration::from_millis(500), files.changed()).await.is_ok());
    }

    #[tokio::test]
    async fn a_folder_that_is_a_link_is_watched_wherever_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let (path, current) = (folder.path(), folder.path().join("current"));
        for version in ["v1", "v2"] {
            fs::create_dir(path.join(version)).unwrap();
        }
        std::os::unix::fs::symlink("v1", &current).unwrap();
        let mut files = Files::start();
        files.watch(std::slice::from_ref(&current));
        std::os::unix::fs::symlink("v2", path.join("next")).unwrap();
        fs::rename(path.join("next"), &current).unwrap();
        assert!(timeout(Duration::from_millis(500), files.changed()).await.is_ok(), "another folder");
        files.watch(std::slice::from_ref(&current));
        fs::write(path.join("v2/new.toml"), "").unwrap();
        assert!(timeout(Duration::from_millis(500), files.changed()).await.is_ok(), "in that folder");
    }

    #[tokio::test]
    async fn a_change_is_noticed_by_whoever_is_called_away_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weir.toml");
        fs::write(&file, "a").unwrap();
        let mut files = Files::start();
        files.watch(std::slice::from_ref(&file));
        fs::write(&file, "bb").unwrap();
        // Each time the event may just have come, and the folder not have fallen quiet.
        for _ in 0..20 {
            if timeout(QUIET / 2, files.changed()).await.is_ok() {
                return;
            }
        }
        // Where nobody lets it fall quiet, the next who has the patience finds it at once.
        assert!(timeout(QUIET * 2 * PATIENCE, files.changed()).await.is_ok());
    }

    #[tokio::test]
    async fn another_file_in_the_same_folder_is_not_our_business() {
        assert!(!notices(|folder| fs::write(folder.join("access.log"), "line").unwrap()).await);
    }
}
