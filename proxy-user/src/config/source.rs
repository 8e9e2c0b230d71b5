//! The texts that a configuration was read from, so that a fault can show its line.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Between a line of a composed document and what it was made of.
pub const SAID_BY: &str = "  #: ";

/// Which of the [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(usize);

/// A place in one of the sources, by bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub file: FileId,
    pub span: Range<usize>,
}

/// All texts that were read: configuration files, and list files once they are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    /// What it is called in messages.
    path: PathBuf,
    /// Where it stands, or will stand: relative paths begin there.
    place: PathBuf,
    text: Arc<str>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// One of the host's own.
    Own,
    /// A document that a provider gave.
    Given,
    /// What another one names: a list.
    PartOf(FileId),
}

impl Sources {
    pub fn add(&mut self, path: PathBuf, text: impl Into<Arc<str>>) -> FileId {
        self.add_at(path.clone(), path, text)
    }

    /// A text that is called `path`, but belongs at `place`.
    pub fn add_at(&mut self, path: PathBuf, place: PathBuf, text: impl Into<Arc<str>>) -> FileId {
        self.push(Source { path, place, text: text.into(), kind: Kind::Own })
    }

    /// A document that a provider gave.
    pub fn add_given(&mut self, path: PathBuf, place: PathBuf, text: impl Into<Arc<str>>) -> FileId {
        self.push(Source { path, place, text: text.into(), kind: Kind::Given })
    }

    /// What `of` names by its path.
    pub fn add_part(&mut self, of: FileId, path: PathBuf, text: impl Into<Arc<str>>) -> FileId {
        self.push(Source { path: path.clone(), place: path, text: text.into(), kind: Kind::PartOf(of) })
    }

    fn push(&mut self, source: Source) -> FileId {
        self.files.push(source);
        FileId(self.files.len() - 1)
    }

    /// Whether it came from a provider.
    #[must_use]
    pub fn is_given(&self, file: FileId) -> bool {
        matches!(self.files[file.0].kind, Kind::Given)
    }

    /// The configuration text to which it belongs.
    #[must_use]
    pub fn whole(&self, file: FileId) -> FileId {
        match self.files[file.0].kind {
            Kind::PartOf(of) => of,
            Kind::Own | Kind::Given => file,
        }
    }

    #[must_use]
    pub fn path(&self, file: FileId) -> &Path {
        &self.files[file.0].path
    }

    #[must_use]
    pub fn text(&self, file: FileId) -> &str {
        &self.files[file.0].text
    }

    /// Of a document that a provider has composed: what the spot's line was made of. Such a line ends with a note
    /// ([`SAID_BY`]), since nobody has written the line itself.
    #[must_use]
    pub fn said_by(&self, spot: &Spot) -> Option<&str> {
        if !self.is_given(spot.file) {
            return None;
        }
        let text = self.text(spot.file);
        let start = floor_char_boundary(text, spot.span.start);
        let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let (_, by) = text[line..].lines().next()?.rsplit_once(SAID_BY)?;
        Some(by)
    }

    /// A relative path is relative to the file that names it.
    #[must_use]
    pub fn resolve(&self, file: FileId, path: &str) -> PathBuf {
        match self.files[file.0].place.parent() {
            Some(folder) => folder.join(path),
            None => PathBuf::from(path),
        }
    }

    /// Line and column of a spot, both from 1; the column counts characters.
    #[must_use]
    pub fn position(&self, spot: &Spot) -> (usize, usize) {
        let text = self.text(spot.file);
        let before = &text[..floor_char_boundary(text, spot.span.start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |start| start.chars().count()) + 1;
        (line, column)
    }
}

/// The nearest start of a character at or before `at`.
pub(super) fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("weir.toml".into(), "a\nβγ = 1\n");
        let at = |start: usize| sources.position(&Spot { file, span: start..start });
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (2, 1));
        assert_eq!(at(6), (2, 3));
        assert_eq!(at(99), (3, 1), "past the end is the end");
        assert_eq!(at(3), (2, 1), "inside a character is its start");
    }

    #[test]
    fn a_composed_line_says_what_it_was_made_of_and_a_written_one_nothing() {
        let mut sources = Sources::default();
        let text = "[a]\nb = \"#: \"  #: label x\n";
        let (given, own) = (sources.add_given("d".into(), "d".into(), text), sources.add("w".into(), text));
        let by = |file, start| sources.said_by(&Spot { file, span: start..start });
        assert_eq!((by(given, 5), by(given, 1), by(own, 5)), (Some("label x"), None, None));
        assert_eq!(by(given, 99), None, "past the end is nobody's line");
    }

    #[test]
    fn a_relative_path_belongs_to_the_file_that_names_it() {
        let mut sources = Sources::default();
        let file = sources.add("/etc/weir/weir.toml".into(), "");
        assert_eq!(sources.resolve(file, "page.html"), Path::new("/etc/weir/page.html"));
        assert_eq!(sources.resolve(file, "/srv/page.html"), Path::new("/srv/page.html"));
    }
}
