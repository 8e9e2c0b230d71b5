//! The documents of each provider that ran last, on disk: `STATE/providers/NAME.json`, replaced whole. A host starts with
//! them while their source is away.
//!
//! They may hold secrets (password hashes of `basic_auth`), so nobody else may read them. A digest tells a file that was
//! damaged or edited: what nobody meant must not run.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    config::{
        self,
        documents::{Document, Supplies, Supply},
        model::Config,
    },
    control::trial::write_whole,
    state_file,
};

const VERSION: u32 = 1;

/// What ran last of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub documents: Vec<Document>,
    /// When the source last said that this is what it has.
    pub confirmed: Timestamp,
    pub revision: Option<String>,
}

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    /// Of this layout.
    version: u32,
    confirmed: Timestamp,
    revision: Option<String>,
    documents: Vec<Entry>,
    /// Over all of the above.
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    origin: PathBuf,
    place: Option<PathBuf>,
    text: String,
}

/// Where a provider's documents are kept below the state folder. Names consist of letters, digits, `-` and `_`.
#[must_use]
pub fn path(state: &Path, provider: &str) -> PathBuf {
    state.join("providers").join(format!("{provider}.json"))
}

/// What was kept; nothing, if nothing ever was.
///
/// # Errors
/// A sentence, when the file is there and can't be believed.
pub fn load(state: &Path, provider: &str) -> Result<Option<Kept>, String> {
    let path = path(state, provider);
    let Some(file) = state_file::read(&path, VERSION, |file: &File| file.version)? else { return Ok(None) };
    if file.digest != file.digest() {
        return Err(state_file::damaged(&path, "its digest is wrong"));
    }
    let File { confirmed, revision, documents, .. } = file;
    let document =
        |Entry { name, origin, place, text }| Document { name, origin, place, text: Ok(text.into()) };
    Ok(Some(Kept { documents: documents.into_iter().map(document).collect(), confirmed, revision }))
}

/// Keeps the documents. One without a text is none that could have run.
///
/// # Errors
/// A sentence, when the disk doesn't take it; what was there stays.
pub fn save(state: &Path, provider: &str, kept: &Kept) -> Result<(), String> {
    let entry = |document: &Document| {
        let Document { name, origin, place, text } = document.clone();
        Some(Entry { name, origin, place, text: text.ok()?.to_string() })
    };
    let mut file = File {
        version: VERSION,
        confirmed: kept.confirmed,
        revision: kept.revision.clone(),
        documents: kept.documents.iter().filter_map(entry).collect(),
        digest: String::new(),
    };
    file.digest = file.digest();
    let path = path(state, provider);
    let folder = path.parent().unwrap_or(state);
    let text = serde_json::to_vec_pretty(&file).map_err(|error| error.to_string())?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| write_whole(&path, &text, 0o600))
        .map_err(|error| format!("{} can't be written: {error}", path.display()))
}

/// What a host would start with while all sources are away; and a sentence for each file that can't be believed.
#[must_use]
pub fn supplies(config: &Config) -> (Supplies, Vec<String>) {
    let mut supplies = Supplies::new();
    let mut troubles = Vec::new();
    for provider in &config.providers {
        match load(&config.state.dir, &provider.name) {
            Ok(None) => {}
            Ok(Some(Kept { documents, .. })) => {
                let supply = Supply { wanted: documents.clone(), good: documents, whole: false };
                supplies.insert(provider.name.clone(), supply);
            }
            Err(why) => troubles.push(why),
        }
    }
    (supplies, troubles)
}

/// Likewise, for who has no more than the host's own configuration: commands.
#[must_use]
pub fn of_host(path: &Path) -> (Supplies, Vec<String>) {
    config::load_bare(path).map(|bare| supplies(&bare.config)).unwrap_or_default()
}

// === impl File ===

impl File {
    /// Lengths go first, so that nothing can move from one text into the next.
    fn digest(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        add(self.confirmed.to_string().as_bytes());
        add(self.revision.as_deref().unwrap_or_default().as_bytes());
        for Entry { name, origin, place, text } in &self.documents {
            add(name.as_bytes());
            add(origin.as_os_str().as_encoded_bytes());
            add(place.as_deref().unwrap_or(Path::new("")).as_os_str().as_encoded_bytes());
            add(text.as_bytes());
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kept() -> Kept {
        Kept {
            documents: vec![Document::of("store", "a.toml", "[x]\n"), Document::of("store", "b.toml", "")],
            confirmed: "2026-01-02T03:04:05Z".parse().unwrap(),
            revision: Some("17".into()),
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_is_for_nobody_else() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(load(state.path(), "store").unwrap(), None);
        save(state.path(), "store", &kept()).unwrap();
        assert_eq!(load(state.path(), "store").unwrap(), Some(kept()));
        let mode = fs::metadata(path(state.path(), "store")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_edited_is_never_believed_and_is_named() {
        let state = tempfile::tempdir().unwrap();
        save(state.path(), "store", &kept()).unwrap();
        let path = path(state.path(), "store");
        let text = fs::read_to_string(&path).unwrap();
        for text in [
            text.replace("[x]", "[y]"),
            text.replace("a.toml", "c.toml"),
            text.replace("\"17\"", "\"18\""),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            fs::write(&path, &text).unwrap();
            let why = load(state.path(), "store").unwrap_err();
            assert!(why.contains(path.to_str().unwrap()), "{why}");
        }
    }
}
