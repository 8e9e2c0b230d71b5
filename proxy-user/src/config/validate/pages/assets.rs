//! What lies beside a page: a folder, read whole into memory. Bounded, and never left by a link.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::config::{code::Code, findings::Findings, gather, source::FileId, value::quoted, written::At};

const MOST_FILES: usize = 200;
const LARGEST: u64 = 8 << 20;
const DEEPEST: usize = 8;

/// All files in the folder, by their path below it.
pub fn read(
    file: FileId,
    what: &str,
    written: &At<String>,
    findings: &mut Findings,
) -> Vec<(Arc<str>, Bytes)> {
    let folder = findings.sources.resolve(file, &written.value);
    let mut reading =
        Reading { root: PathBuf::new(), left: LARGEST, found: Vec::new(), looked_at: vec![folder.clone()] };
    let outcome = folder.canonicalize().map_err(|error| gather::reason(&error)).and_then(|root| {
        reading.root = root;
        reading.folder(&folder, "", 0)
    });
    for path in &reading.looked_at {
        findings.watch(path);
    }
    if let Err(why) = outcome {
        let folder = quoted(&folder.to_string_lossy());
        let message = format!("{what}: the assets in {folder} can't be served: {why}");
        findings.error(Code::BadPage, file, &written.span, message).hint(format!(
            "a folder of at most {MOST_FILES} plain files, 8 MiB together, that Weir may read"
        ));
    }
    reading.found.sort_by(|(one, _), (other, _)| one.cmp(other));
    reading.found
}

struct Reading {
    /// Without links.
    root: PathBuf,
    left: u64,
    found: Vec<(Arc<str>, Bytes)>,
    looked_at: Vec<PathBuf>,
}

impl Reading {
    /// `below`: the folder's path from the root, with a slash behind it.
    fn folder(&mut self, folder: &Path, below: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("{below} lies deeper than {DEEPEST} folders"));
        }
        let fault = |path: &Path, error: &io::Error| format!("{}: {}", path.display(), gather::reason(error));
        let entries = std::fs::read_dir(folder).map_err(|error| fault(folder, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| fault(folder, &error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(format!("the name of {} is not UTF-8", path.display()));
            };
            // An editor's, or Kubernetes' own.
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{below}{name}");
            let whole = path.canonicalize().map_err(|error| fault(&path, &error))?;
            if !whole.starts_with(&self.root) {
                return Err(format!("{name} is a link out of the folder"));
            }
            self.looked_at.push(path.clone());
            if whole.is_dir() {
                self.folder(&whole, &format!("{name}/"), depth + 1)?;
                continue;
            }
            if self.found.len() == MOST_FILES {
                return Err(format!("there are more than {MOST_FILES} files"));
            }
            let bytes = gather::bytes(&whole, LARGEST).map_err(|error| fault(&path, &error))?;
            self.left =
                self.left.checked_sub(bytes.len() as u64).ok_or("they have more than 8 MiB together")?;
            self.found.push((name.into(), bytes.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn reading(folder: &Path) -> Result<Vec<String>, String> {
        let root = folder.canonicalize().unwrap();
        let mut reading = Reading { root, left: LARGEST, found: Vec::new(), looked_at: Vec::new() };
        reading.folder(folder, "", 0)?;
        let mut names: Vec<_> = reading.found.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn all_files_below_are_read_and_hidden_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("img")).unwrap();
        fs::create_dir(path.join("..2026")).unwrap();
        for file in ["a.css", "img/logo.svg", ".hidden", "..2026/b.css"] {
            fs::write(path.join(file), "x").unwrap();
        }
        // As Kubernetes mounts them.
        symlink("..2026", path.join("..data")).unwrap();
        symlink("..data/b.css", path.join("b.css")).unwrap();
        assert_eq!(reading(path).unwrap(), ["a.css", "b.css", "img/logo.svg"]);
    }

    #[test]
    fn a_link_out_of_the_folder_and_a_flood_of_files_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        for (target, link) in [
            (outside.path().join("secret"), "file"),
            (outside.path().to_owned(), "folder"),
            ("/etc/passwd".into(), "x"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            symlink(target, folder.path().join(link)).unwrap();
            assert_eq!(reading(folder.path()), Err(format!("{link} is a link out of the folder")));
        }
        let folder = tempfile::tempdir().unwrap();
        symlink(folder.path(), folder.path().join("round")).unwrap();
        assert!(reading(folder.path()).unwrap_err().contains("lies deeper"));
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST_FILES {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(reading(folder.path()), Err("there are more than 200 files".into()));
    }

    #[test]
    fn what_is_too_large_or_no_plain_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::File::create(folder.path().join(name)).unwrap().set_len(5 << 20).unwrap();
        }
        assert_eq!(reading(folder.path()), Err("they have more than 8 MiB together".into()));
        let folder = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reading(folder.path()).unwrap_err().ends_with("it is not a plain file"));
    }
}
