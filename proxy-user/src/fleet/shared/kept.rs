//! The [`Ledger`] on disk: `STATE/fleet/switches.json`, so that a host that starts knows which of its switches others know, and
//! what it has yet to tell them. What is on is kept elsewhere, by who owns it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::{control::trial::write_whole, state_file};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of this layout.
    version: u32,
    /// Below which prefix of the store: another one is another fleet.
    prefix: String,
    ledger: Ledger,
}

/// Where it is kept below the state folder.
#[must_use]
pub fn path(state: &Path) -> PathBuf {
    state.join("fleet/switches.json")
}

/// What was kept for this prefix; what can't be believed is told, and put out of the way for somebody to look at.
#[must_use]
pub fn load_or_set_aside(path: &Path, prefix: &str) -> Ledger {
    match state_file::read(path, VERSION, |kept: &Kept| kept.version) {
        Ok(kept) => kept.filter(|kept| kept.prefix == prefix).map(|kept| kept.ledger).unwrap_or_default(),
        Err(why) => {
            let aside = state_file::set_aside(path);
            tracing::error!(
                "{why}: what other hosts know of this one's switches is read from the store anew; {aside}"
            );
            Ledger::default()
        }
    }
}

/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn save(path: &Path, prefix: &str, ledger: &Ledger) -> Result<(), String> {
    let kept = Kept { version: VERSION, prefix: prefix.to_owned(), ledger: ledger.clone() };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)
        .and_then(|()| write_whole(path, &text, 0o640))
        .map_err(|error| format!("{} can't be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::shared::switch::{Said, tests::block};

    #[test]
    fn what_is_yet_to_be_said_outlives_the_daemon_but_is_not_said_to_another_fleet() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        let switch = block("192.0.2.0/24", "scans");
        let mut ledger = Ledger::default();
        ledger.said(&switch.name(), Said::new("edge-1", 1, false, Some(switch.clone())));
        save(&path, "/weir/", &ledger).unwrap();
        assert_eq!(load_or_set_aside(&path, "/weir/"), ledger);
        assert_eq!(load_or_set_aside(&path, "/other/"), Ledger::default());
        fs::write(&path, "{").unwrap();
        assert_eq!(load_or_set_aside(&path, "/weir/"), Ledger::default());
        assert!(path.with_extension("json.damaged").exists());
    }
}
