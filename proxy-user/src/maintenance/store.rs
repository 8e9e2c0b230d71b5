//! Where the windows that somebody ordered outlive the daemon: one small file in the state folder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Ordered;
use crate::{blocklist::store::write, state_file};

const VERSION: u32 = 1;

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Of this layout.
    version: u32,
    windows: Vec<Ordered>,
}

/// Where it is kept below the state folder.
pub fn path(state: &Path) -> std::path::PathBuf {
    state.join("maintenance.json")
}

/// # Errors
/// A sentence, when the file is there and can't be believed.
pub fn load(path: &Path) -> Result<Vec<Ordered>, String> {
    let Some(kept) = state_file::read(path, VERSION, |kept: &Kept| kept.version)? else {
        return Ok(Vec::new());
    };
    Ok(kept.windows)
}

/// Likewise; a file that can't be believed is told, and put out of the way for somebody to look at.
pub fn load_or_set_aside(path: &Path) -> Vec<Ordered> {
    load(path).unwrap_or_else(|why| {
        let kept = state_file::set_aside(path);
        tracing::error!("{why}: MAINTENANCE THAT WAS ORDERED DOESN'T HOLD any more; {kept}");
        Vec::new()
    })
}

/// # Errors
/// When the disk doesn't take it; what was there stays.
pub fn save(path: &Path, windows: &[Ordered]) -> Result<(), String> {
    let kept = Kept { version: VERSION, windows: windows.to_vec() };
    // Texts and times always have a form in JSON.
    let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    write(path, &text).map_err(|error| format!("{} can't be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::maintenance::Span;

    fn windows() -> Vec<Ordered> {
        let ordered = Ordered {
            id: 1,
            routes: vec!["shop".into()],
            hosts: Vec::new(),
            allow: vec!["office".into(), "192.0.2.0/24".into()],
            except: vec!["/health".into()],
            span: Span { from: None, until: Some("2030-01-01T00:00:00Z".parse().unwrap()) },
            page: "maintenance".into(),
            why: "\"new\" shop".into(),
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        vec![Ordered { id: 2, span: Span::default(), ..ordered.clone() }, ordered]
    }

    #[test]
    fn what_was_ordered_comes_back_and_a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("deep"));
        assert_eq!(load(&path), Ok(Vec::new()));
        save(&path, &windows()).unwrap();
        assert_eq!(load(&path), Ok(windows()));
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            text.replace("2030-01-01", "soon"),
            text.replace("\"version\": 1", "\"version\": 9"),
            String::new(),
        ] {
            fs::write(&path, &damaged).unwrap();
            assert!(load(&path).unwrap_err().contains("is damaged"));
            assert!(load_or_set_aside(&path).is_empty() && !path.exists());
            assert_eq!(fs::read_to_string(path.with_extension("json.damaged")).unwrap(), damaged);
        }
    }
}
