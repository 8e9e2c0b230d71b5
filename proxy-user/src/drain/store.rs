//! What is drained, on disk: `STATE/drains.json`, replaced whole at every change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{By, DrainList, Name, Word};
use crate::{control::trial::write_whole, state_file};

const VERSION: u32 = 1;

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Of this layout.
    version: u32,
    #[serde(default)]
    host: Option<Word>,
    servers: Vec<KeptServer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptServer {
    service: String,
    server: String,
    since: Timestamp,
    by: By,
    #[serde(default)]
    who: Option<String>,
    #[serde(default)]
    why: Option<String>,
}

/// Where it is kept below the state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("drains.json")
}

/// What was kept; nothing, if nothing ever was.
///
/// # Errors
/// A sentence, when the file is there and can't be believed.
pub fn load(path: &Path) -> Result<DrainList, String> {
    let Some(kept) = state_file::read(path, VERSION, |kept: &Kept| kept.version)? else {
        return Ok(DrainList::default());
    };
    let servers = kept.servers.into_iter().map(|kept| {
        let KeptServer { service, server, since, by, who, why } = kept;
        (Name { service, server }, Word { since, by, who, why })
    });
    Ok(DrainList { host: kept.host, servers: servers.collect() })
}

/// Likewise; a file that can't be believed is told, and put out of the way for somebody to look at.
pub fn load_or_set_aside(path: &Path) -> DrainList {
    load(path).unwrap_or_else(|why| {
        let kept = state_file::set_aside(path);
        tracing::error!("{why}: NOTHING IS DRAINED any more, every server gets work again; {kept}");
        DrainList::default()
    })
}

/// Keeps the list.
///
/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn save(path: &Path, list: &DrainList) -> Result<(), String> {
    let server = |(name, word): (&Name, &Word)| {
        let (Name { service, server }, Word { since, by, who, why }) = (name.clone(), word.clone());
        KeptServer { service, server, since, by, who, why }
    };
    let kept = Kept {
        version: VERSION,
        host: list.host.clone(),
        servers: list.servers.iter().map(server).collect(),
    };
    // Texts and times always have a form in JSON.
    let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)
        .and_then(|()| write_whole(path, &text, 0o640))
        .map_err(|error| format!("{} can't be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::tests::word;

    fn list() -> DrainList {
        let by_roll = Word { by: By::Roll, who: Some("anna".into()), why: None, ..word("") };
        DrainList {
            host: Some(word("a new \"kernel\"")),
            servers: [
                (Name::of("app", "[2001:db8::1]:8080"), word("disk")),
                (Name::of("app", "10.0.0.1:8080"), by_roll),
            ]
            .into(),
        }
    }

    #[test]
    fn what_is_kept_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("deep"));
        assert_eq!(load(&path), Ok(DrainList::default()));
        for list in [list(), DrainList::default(), list()] {
            save(&path, &list).unwrap();
            assert_eq!(load(&path), Ok(list));
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_never_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        save(&path, &list()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            text.replace("\"version\": 1", "\"version\": 2"),
            text.replace("\"roll\"", "\"nobody\""),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            fs::write(&path, &damaged).unwrap();
            let why = load(&path).unwrap_err();
            assert!(why.contains(path.to_str().unwrap()), "{why}");
            assert_eq!(load_or_set_aside(&path), DrainList::default());
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join("drains.json.damaged")).unwrap(), damaged);
        }
    }
}
