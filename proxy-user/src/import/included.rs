//! `include` of nginx: files by name or with `*` in their last part, as far as they are there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A pattern that matches more is not a configuration.
const MOST: usize = 1_000;

/// The files that a pattern names, in the order of their names. Relative ones begin at `folder`.
pub(super) fn files(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = folder.join(pattern);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    if !name.contains('*') {
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            let found = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // As a shell does, a star leaves hidden files alone.
            !found.starts_with('.') && matches(name, found) && file.is_file()
        })
        .take(MOST)
        .collect();
    files.sort();
    files
}

/// Whether a name fits a pattern in which `*` is anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
        for (pattern, name, fits) in [
            ("*.conf", "site.conf", true),
            ("*.conf", "site.conf.bak", false),
            ("*", "x", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c", false),
            ("site", "site", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
