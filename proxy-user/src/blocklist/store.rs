//! The blocklist on disk: `STATE/blocks.json`, replaced whole at every change. Ends are times of the wall clock, so that they
//! hold over a restart of the host.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Block, Blocklist};
use crate::state_file;

const VERSION: u32 = 1;

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Of this layout.
    version: u32,
    blocks: Vec<Block>,
}

/// Where it is kept below the state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("blocks.json")
}

/// What was kept; nothing, if nothing ever was.
///
/// # Errors
/// A sentence, when the file is there and can't be believed.
pub fn load(path: &Path) -> Result<Blocklist, String> {
    let Some(kept) = state_file::read(path, VERSION, |kept: &Kept| kept.version)? else {
        return Ok(Blocklist::default());
    };
    if let Some(odd) = kept.blocks.iter().find(|block| block.prefix != block.prefix.trunc()) {
        let why = format!("{} has bits set behind its length", odd.prefix);
        return Err(state_file::damaged(path, &why));
    }
    Ok(kept.blocks.into_iter().collect())
}

/// Likewise; a file that can't be believed is told, and put out of the way for somebody to look at.
pub fn load_or_set_aside(path: &Path) -> Blocklist {
    load(path).unwrap_or_else(|why| {
        let kept = state_file::set_aside(path);
        tracing::error!("{why}: NOBODY IS BLOCKED any more; {kept}");
        Blocklist::default()
    })
}

/// Keeps the list: written beside, flushed to the disk, renamed.
///
/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn save(path: &Path, list: &Blocklist) -> Result<(), String> {
    let kept = Kept { version: VERSION, blocks: list.iter().cloned().collect() };
    // Texts, times and flags always have a form in JSON.
    let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    write(path, &text).map_err(|error| format!("{} can't be written: {error}", path.display()))
}

/// Replaces a file whole: written beside, flushed to the disk, renamed.
///
/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Blocklist {
        let block = Block {
            prefix: "192.0.2.0/24".parse().unwrap(),
            until: Some("2030-01-01T00:00:00Z".parse().unwrap()),
            why: "scans \"everything\"".into(),
            cdn: false,
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        let forever = Block { prefix: "2001:db8::/32".parse().unwrap(), until: None, ..block.clone() };
        [block, forever].into_iter().collect()
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("deep"));
        assert!(load(&path).unwrap().is_empty());
        save(&path, &list()).unwrap();
        save(&path, &list()).unwrap();
        assert_eq!(load(&path), Ok(list()));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_never_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        save(&path, &list()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            text.replace("192.0.2.0/24", "192.0.2.1/24"),
            text.replace("192.0.2.0/24", "all of them"),
            text.replace("\"version\": 1", "\"version\": 2"),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            fs::write(&path, &damaged).unwrap();
            let why = load(&path).unwrap_err();
            assert!(why.contains(path.to_str().unwrap()), "{why}");
            assert!(load_or_set_aside(&path).is_empty());
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join("blocks.json.damaged")).unwrap(), damaged);
        }
    }
}
