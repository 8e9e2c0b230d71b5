//! The last good lists on disk, so that a daemon that starts without a network begins with what was fetched last.
//!
//! One file for each list, `STATE/allowlists/NAME.json`, replaced whole: after a power cut there is the old or the new
//! one. A checksum over what it says tells a file that was damaged or edited; such a file is not believed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Good, Part};
use crate::config::{model::ListSource, parse_prefix};

/// A million prefixes fit in this many bytes.
const LARGEST: u64 = 128 << 20;

/// The folder that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store(PathBuf);

/// Why there is no list to be had from the disk. `Display` names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    #[error("{path} can't be read: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path} is damaged or was edited ({why})")]
    Corrupt { path: PathBuf, why: String },
    #[error("{path} can't be written: {error}")]
    Unwritable { path: PathBuf, error: io::Error },
}

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Of this layout.
    version: u32,
    /// When the source last said that this is the list, RFC 3339.
    confirmed: String,
    json: Vec<String>,
    parts: Vec<KeptPart>,
    /// Over all of the above.
    checksum: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptPart {
    url: String,
    etag: Option<String>,
    prefixes: Vec<String>,
}

const VERSION: u32 = 1;

// === impl Store ===

impl Store {
    /// Below the state folder `state`, which needn't exist yet.
    pub fn within(state: &Path) -> Self {
        Self(state.join("allowlists"))
    }

    pub fn path(&self, list: &str) -> PathBuf {
        // A list's name consists of letters, digits, `-` and `_`.
        self.0.join(format!("{list}.json"))
    }

    /// The last good list; `None` if none was ever kept.
    ///
    /// # Errors
    /// When the file is there but can't be believed.
    pub fn load(&self, list: &str) -> Result<Option<Good>, StoreFault> {
        let path = self.path(list);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreFault::Unreadable { path, error }),
        };
        parse(&text).map(Some).map_err(|why| StoreFault::Corrupt { path, why })
    }

    /// Keeps `good` as the last good list: written beside, flushed to the disk, renamed.
    ///
    /// # Errors
    /// When the disk doesn't take it; what was there stays.
    pub fn save(&self, list: &str, good: &Good) -> Result<(), StoreFault> {
        let path = self.path(list);
        write(&self.0, &path, &render(good)).map_err(|error| StoreFault::Unwritable { path, error })
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(io::Error::other("it is not a plain file of at most 128 MiB"));
    }
    fs::read(path)
}

fn write(folder: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // The daemon is the only writer, and writes one version of a list after the other.
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn render(good: &Good) -> Vec<u8> {
    let parts = good.source.urls.iter().zip(&good.parts).map(|(url, part)| KeptPart {
        url: url.to_string(),
        etag: part.etag.clone(),
        prefixes: part.prefixes.iter().map(ToString::to_string).collect(),
    });
    let mut kept = Kept {
        version: VERSION,
        confirmed: good.confirmed.to_string(),
        json: good.source.json.clone(),
        parts: parts.collect(),
        checksum: String::new(),
    };
    kept.checksum = checksum(&kept);
    // Texts and lists of texts always have a form in JSON.
    serde_json::to_vec_pretty(&kept).unwrap_or_default()
}

fn parse(text: &[u8]) -> Result<Good, String> {
    let kept: Kept = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("its layout is {}, this weir's is {VERSION}", kept.version));
    }
    if kept.checksum != checksum(&kept) {
        return Err("its checksum is wrong".to_owned());
    }
    let mut good = Good {
        source: ListSource { urls: Vec::new(), json: kept.json },
        parts: Vec::new(),
        confirmed: kept.confirmed.parse::<Timestamp>().map_err(|error| error.to_string())?,
    };
    for part in kept.parts {
        let url = part.url.parse().map_err(|_| format!("`{}` is not a URL", part.url))?;
        let prefixes: Result<Vec<IpNet>, _> =
            part.prefixes.iter().map(|prefix| parse_prefix(prefix)).collect();
        let prefixes = prefixes.map_err(|refusal| format!("a prefix {}", refusal.because))?;
        good.source.urls.push(url);
        good.parts.push(Part { etag: part.etag, prefixes });
    }
    if good.prefixes().is_empty() {
        return Err("it holds no prefix".to_owned());
    }
    Ok(good)
}

/// FNV-1a: it is about accidents. Whoever may write here may also write the configuration.
fn checksum(kept: &Kept) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |text: &str| {
        // The zero keeps one text's end from becoming the next one's beginning.
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(&kept.confirmed);
    kept.json.iter().for_each(|pointer| add(pointer));
    for part in &kept.parts {
        add(&part.url);
        add(part.etag.as_deref().unwrap_or_default());
        part.prefixes.iter().for_each(|prefix| add(prefix));
    }
    format!("fnv1a64:{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Good {
        Good {
            source: ListSource {
                urls: vec![
                    "https://lists.example.com/v4".parse().unwrap(),
                    "https://b.example/6".parse().unwrap(),
                ],
                json: vec!["/a".to_owned()],
            },
            parts: vec![
                Part { etag: Some("\"1\"".to_owned()), prefixes: vec!["192.0.2.0/24".parse().unwrap()] },
                Part { etag: None, prefixes: vec!["2001:db8::/32".parse().unwrap()] },
            ],
            confirmed: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::within(&folder.path().join("deep/er"));
        assert!(store.load("cdn").unwrap().is_none());
        store.save("cdn", &good()).unwrap();
        store.save("cdn", &good()).unwrap();
        assert_eq!(store.load("cdn").unwrap(), Some(good()));
        assert_eq!(fs::read_dir(folder.path().join("deep/er/allowlists")).unwrap().count(), 1);
    }

    /// Each of these leaves a file that still looks like one, or doesn't.
    #[test]
    fn a_damaged_file_is_never_believed_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::within(folder.path());
        store.save("cdn", &good()).unwrap();
        let path = store.path("cdn");
        let text = fs::read_to_string(&path).unwrap();
        let damaged = [
            text.replace("192.0.2.0/24", "193.0.2.0/24"),
            text.replace("192.0.2.0/24", "0.0.0.0/0"),
            text.replace("\\\"1\\\"", "\\\"2\\\""),
            text.replace("2026-01", "2027-01"),
            text.replace("\"version\": 1", "\"version\": 2"),
            text[..text.len() / 2].to_owned(),
            String::new(),
            "\0".repeat(text.len()),
        ];
        for text in damaged {
            fs::write(&path, &text).unwrap();
            let fault = store.load("cdn").unwrap_err();
            assert!(matches!(fault, StoreFault::Corrupt { .. }), "{fault} of {text}");
            assert!(fault.to_string().contains(path.to_str().unwrap()), "{fault}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_fault_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let store = Store::within(&folder.path().join("file"));
        let fault = store.save("cdn", &good()).unwrap_err();
        assert!(fault.to_string().contains("allowlists/cdn.json can't be written"), "{fault}");
        assert!(store.load("cdn").is_err(), "not a folder is not \"never kept\"");
    }
}
