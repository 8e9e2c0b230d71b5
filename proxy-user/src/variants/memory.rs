//! What was decided at run time and outlives the daemon: weights, and how far judges are. `STATE/splits.json`, replaced whole
//! at every change; and the key of the cookies.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::{judge::Judge, sticky::Key};
use crate::{
    blocklist::store,
    state_file,
    sticky::key::{BYTES, OwnKey},
};

const VERSION: u32 = 1;

/// Shared by all snapshots; the control side changes it.
#[derive(Debug)]
pub struct Memory {
    state: PathBuf,
    splits: Mutex<BTreeMap<String, Kept>>,
    key: OnceLock<ArcSwap<OwnKey>>,
}

/// Of one split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// By the variants' names; none: those of the configuration.
    pub weights: Option<BTreeMap<String, u32>>,
    pub judge: Option<Judge>,
}

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Layout {
    version: u32,
    splits: BTreeMap<String, Kept>,
}

impl Memory {
    /// What is kept in the state folder. What can't be believed is told, and put out of the way for somebody to look at.
    pub fn at_start(state: &Path) -> Self {
        let path = path(state);
        let splits = load(&path).unwrap_or_else(|why| {
            let kept = state_file::set_aside(&path);
            tracing::error!("{why}: splits have their CONFIGURED WEIGHTS, and judges don't go on; {kept}");
            BTreeMap::new()
        });
        Self { state: state.to_owned(), splits: Mutex::new(splits), key: OnceLock::new() }
    }

    pub fn of(&self, split: &str) -> Option<Kept> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).get(split).cloned()
    }

    pub fn all(&self) -> BTreeMap<String, Kept> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`Self::keep`], but until the daemon ends.
    pub fn hold(&self, split: &str, kept: Kept) {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).insert(split.to_owned(), kept);
    }

    /// Keeps something else of a split.
    ///
    /// # Errors
    /// When the disk doesn't take it; then nothing has changed.
    pub fn keep(&self, split: &str, kept: Kept) -> Result<(), String> {
        let mut splits = self.all();
        if kept == Kept::default() {
            splits.remove(split);
        } else {
            splits.insert(split.to_owned(), kept);
        }
        save(&path(&self.state), &splits)?;
        *self.splits.lock().unwrap_or_else(PoisonError::into_inner) = splits;
        Ok(())
    }

    /// What cookies are signed with.
    pub fn key(&self) -> Arc<Key> {
        Arc::new(self.own_key().into())
    }

    /// Likewise, those that lead to servers where no key was given for them.
    pub fn own_key(&self) -> OwnKey {
        let key = self.key.get_or_init(|| ArcSwap::from_pointee(OwnKey::within(&self.state)));
        OwnKey::clone(&key.load())
    }

    /// The hosts of the fleet have agreed on a key: snapshots that are made from now on sign with it. Whether it is another one.
    pub fn agree(&self, secret: [u8; BYTES]) -> bool {
        let agreed = OwnKey::of(secret);
        let key = self.key.get_or_init(|| ArcSwap::from_pointee(agreed.clone()));
        let before = key.load_full();
        let differs = before.secret() != secret;
        if differs {
            key.store(Arc::new(agreed.after(&before)));
        }
        differs
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("splits.json")
}

fn load(path: &Path) -> Result<BTreeMap<String, Kept>, String> {
    let Some(kept) = state_file::read(path, VERSION, |kept: &Layout| kept.version)? else {
        return Ok(BTreeMap::new());
    };
    Ok(kept.splits)
}

fn save(path: &Path, splits: &BTreeMap<String, Kept>) -> Result<(), String> {
    let kept = Layout { version: VERSION, splits: splits.clone() };
    let text = serde_json::to_vec_pretty(&kept).map_err(|error| error.to_string())?;
    store::write(path, &text).map_err(|error| format!("{} can't be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kept() -> Kept {
        Kept { weights: Some([("app".to_owned(), 20), ("old".to_owned(), 80)].into()), judge: None }
    }

    #[test]
    fn what_is_kept_outlives_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::at_start(folder.path());
        memory.keep("shop", kept()).unwrap();
        assert_eq!(Memory::at_start(folder.path()).of("shop"), Some(kept()));
        memory.keep("shop", Kept::default()).unwrap();
        assert!(Memory::at_start(folder.path()).all().is_empty());
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_never_fatal() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in
            ["{", "{\"version\":9,\"splits\":{}}", "{\"version\":1,\"splits\":{\"a\":{\"weights\":-1}}}"]
        {
            fs::write(path(folder.path()), damaged).unwrap();
            assert!(Memory::at_start(folder.path()).all().is_empty(), "{damaged}");
            assert_eq!(fs::read_to_string(folder.path().join("splits.json.damaged")).unwrap(), damaged);
        }
    }

    #[test]
    fn what_the_disk_does_not_take_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("file");
        fs::write(&state, "in the folder's place").unwrap();
        let memory = Memory { state, splits: Mutex::default(), key: OnceLock::new() };
        assert!(memory.keep("shop", kept()).is_err());
        assert_eq!(memory.of("shop"), None);
    }
}
