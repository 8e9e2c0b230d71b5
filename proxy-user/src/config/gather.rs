//! Which files make a configuration: one, or all `*.toml` of a folder, by name.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{DEFAULT_PATH, code::Code, findings::Findings, source::FileId};

/// Configuration files are written by hand; what is larger was given by mistake.
const LARGEST: u64 = 16 << 20;

/// Reads all files that `path` stands for.
pub fn gather(path: &Path, findings: &mut Findings) -> Vec<FileId> {
    let beside = (path == Path::new(DEFAULT_PATH)).then(|| path.with_file_name("conf.d"));
    gather_with(path, beside.as_deref(), findings)
}

/// As [`gather`] of a file, but with this text in its place; messages call it `name`.
pub fn gather_with_text(path: &Path, name: &Path, text: &str, findings: &mut Findings) -> Vec<FileId> {
    findings.watch(path);
    let mut files = vec![findings.sources.add_at(name.to_owned(), path.to_owned(), text)];
    let beside = path.with_file_name("conf.d");
    if path == Path::new(DEFAULT_PATH) {
        findings.watch(&beside);
        if beside.is_dir() {
            let paths = folder(&beside, findings);
            files.extend(paths.into_iter().filter_map(|path| read(&path, findings)));
        }
    }
    files
}

/// `beside`: a folder whose files are merged too, if it exists.
fn gather_with(path: &Path, beside: Option<&Path>, findings: &mut Findings) -> Vec<FileId> {
    findings.watch(path);
    let mut paths = Vec::new();
    if path.is_dir() {
        paths.extend(folder(path, findings));
        if paths.is_empty() && !findings.failed() {
            let message = "there is no `*.toml` in this folder";
            findings.error_without_place(Code::Unreadable, Some(path), message);
        }
    } else {
        paths.push(path.to_owned());
    }
    if let Some(beside) = beside {
        findings.watch(beside);
        if beside.is_dir() {
            paths.extend(folder(beside, findings));
        }
    }
    paths.into_iter().filter_map(|path| read(&path, findings)).collect()
}

/// The `*.toml` in a folder. Names that begin with a dot are an editor's, or Kubernetes' own.
fn folder(path: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            unreadable(path, &error, findings);
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path, findings: &mut Findings) -> Option<FileId> {
    findings.watch(path);
    match text(path, LARGEST) {
        Ok(text) => Some(findings.sources.add(path.to_owned(), text)),
        Err(error) => {
            unreadable(path, &error, findings);
            None
        }
    }
}

/// A file's text. Refused is what isn't a plain file (a FIFO would block for ever), isn't UTF-8 or is too large.
pub fn text(path: &Path, largest: u64) -> io::Result<String> {
    let bytes = bytes(path, largest)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        io::Error::other(format!("line {} is not UTF-8 text", line + 1))
    })
}

/// A plain file's bytes.
pub fn bytes(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::other("it is a folder, not a file"));
    }
    if !about.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    if about.len() > largest {
        return Err(io::Error::other(format!("it has {} bytes, and {largest} are the most", about.len())));
    }
    std::fs::read(path)
}

/// Why a file can't be read, as the end of a sentence.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn unreadable(path: &Path, error: &io::Error, findings: &mut Findings) {
    let message = format!("can't be read: {}", reason(error));
    let finding = findings.error_without_place(Code::Unreadable, Some(path), message);
    match error.kind() {
        io::ErrorKind::NotFound => {
            finding.hint("`weir run` without a file starts with a built-in configuration to try")
        }
        io::ErrorKind::PermissionDenied => finding.hint("the user that Weir runs as must be able to read it"),
        _ => finding,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[FileId], findings: &Findings) -> Vec<String> {
        let name =
            |file: &FileId| findings.sources.path(*file).file_name().unwrap().to_string_lossy().into_owned();
        files.iter().map(name).collect()
    }

    #[test]
    fn a_folder_is_all_its_toml_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20.toml", "10.toml", ".hidden.toml", "notes.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let mut findings = Findings::default();
        let files = gather_with(folder.path(), None, &mut findings);
        assert_eq!(names(&files, &findings), ["10.toml", "20.toml"]);
    }

    #[test]
    fn a_folder_beside_is_merged_where_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("weir.toml");
        std::fs::write(&main, "").unwrap();
        let beside = folder.path().join("conf.d");
        let mut findings = Findings::default();
        assert_eq!(gather_with(&main, Some(&beside), &mut findings).len(), 1);
        std::fs::create_dir(&beside).unwrap();
        std::fs::write(beside.join("shop.toml"), "").unwrap();
        let files = gather_with(&main, Some(&beside), &mut findings);
        assert_eq!(names(&files, &findings), ["weir.toml", "shop.toml"]);
        assert!(!findings.failed());
    }

    #[test]
    fn an_empty_folder_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let mut findings = Findings::default();
        assert!(gather_with(folder.path(), None, &mut findings).is_empty());
        assert!(findings.failed());
    }
}
