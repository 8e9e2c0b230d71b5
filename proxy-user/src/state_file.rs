//! Small files in the state folder that are read once, at start, and believed only when they are whole.
//!
//! Each says of which layout it is. Within a layout a release may add fields: one that doesn't know them passes them over, so that
//! going back to the release before costs nothing but what those fields said.

pub mod writer;

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;

/// What was kept; `None`, if nothing ever was. `layout`: the version that a file says it is of.
///
/// # Errors
/// A sentence, when the file is there and can't be believed.
pub fn read<K: DeserializeOwned>(
    path: &Path,
    version: u32,
    layout: impl FnOnce(&K) -> u32,
) -> Result<Option<K>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
    };
    let kept: K = serde_json::from_slice(&text).map_err(|error| damaged(path, &error.to_string()))?;
    match layout(&kept) {
        known if known == version => Ok(Some(kept)),
        other => Err(damaged(path, &format!("its layout is {other}, this weir's is {version}"))),
    }
}

pub fn damaged(path: &Path, why: &str) -> String {
    format!("{} is damaged or was edited ({why})", path.display())
}

/// Puts a file that can't be believed out of the way, for somebody to look at. Says what became of it.
pub fn set_aside(path: &Path) -> String {
    let aside = path.with_extension("json.damaged");
    match fs::rename(path, &aside) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(error) => format!("and it can't be put aside: {error}"),
    }
}
