//! Diagnostics: what is wrong, where, and what to do about it; as lines for logs, with the source for a terminal,
//! and as data for `--json`.

use std::{fmt::Write as _, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::{
    code::Code,
    source::{FileId, Sources, Spot, floor_char_boundary},
};

/// One fault or warning. `Serialize` gives the form that `--json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// None where the fault is about the configuration as a whole.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<usize>,
    /// From 1, in characters.
    pub column: Option<usize>,
    /// A sentence without a full stop that names the thing.
    pub message: String,
    pub hint: Option<String>,
    /// The other places that have to do with it, for instance where a name was defined first.
    pub related: Vec<Related>,
    #[serde(skip)]
    spot: Option<Spot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// Another place that a diagnostic refers to.
#[derive(Debug, Clone, Serialize)]
pub struct Related {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    /// What is there.
    pub label: String,
    #[serde(skip)]
    spot: Spot,
}

/// All that was found, in the order of the files. As the error of [`super::load`] it holds at least one error.
#[derive(Debug, Clone)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
    /// Everything that was read or looked for, so that a watcher notices when it is mended.
    pub files: Vec<PathBuf>,
    pub(super) sources: Sources,
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(super) fn new(code: Code, severity: Severity, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            file: None,
            line: None,
            column: None,
            message: on_one_line(&message.into()),
            hint: None,
            related: Vec::new(),
            spot: None,
        }
    }

    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(on_one_line(hint));
        self
    }

    pub(super) fn in_file(mut self, file: PathBuf) -> Self {
        self.file = Some(file);
        self
    }

    pub(super) fn at(mut self, sources: &Sources, spot: Spot) -> Self {
        let (line, column) = sources.position(&spot);
        self.file = Some(sources.path(spot.file).to_owned());
        (self.line, self.column) = (Some(line), Some(column));
        if let Some(by) = sources.said_by(&spot) {
            self.message = on_one_line(&format!("{} ({by})", self.message));
        }
        self.spot = Some(spot);
        self
    }

    pub(super) fn related(mut self, sources: &Sources, spot: Spot, label: impl Into<String>) -> Self {
        let (line, column) = sources.position(&spot);
        let file = sources.path(spot.file).to_owned();
        self.related.push(Related { file, line, column, label: label.into(), spot });
        self
    }

    /// Where it stands among others.
    pub(super) fn order(&self) -> (Option<FileId>, usize) {
        self.spot.as_ref().map_or((None, 0), |spot| (Some(spot.file), spot.span.start))
    }

    /// The file that it points into.
    pub(super) fn source(&self) -> Option<FileId> {
        self.spot.as_ref().map(|spot| spot.file)
    }

    /// Whether it is about something within a part of a file.
    pub(super) fn is_within(&self, file: FileId, part: &Range<usize>) -> bool {
        let within =
            |spot: &Spot| spot.file == file && part.start <= spot.span.start && spot.span.end <= part.end;
        self.spot.as_ref().is_some_and(within)
    }

    /// `error[W012]: weir.toml:41:11: …`, without the hint.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{}[{}]: ", self.severity.name(), self.code);
        if let Some(file) = &self.file {
            let _ = write!(line, "{}:", file.display());
            if let (Some(at), Some(column)) = (self.line, self.column) {
                let _ = write!(line, "{at}:{column}:");
            }
            line.push(' ');
        }
        line.push_str(&self.message);
        on_one_line(&line)
    }

    /// What to do, where else to look, and where to read more: the second line in a log.
    #[must_use]
    pub fn hint_line(&self) -> String {
        let mut line = String::new();
        for related in &self.related {
            let Related { file, line: at, column, label, .. } = related;
            let _ = write!(line, "{label}: {}:{at}:{column}; ", file.display());
        }
        line.push_str(&self.advice());
        on_one_line(&line)
    }

    /// What to do, and where to read more.
    fn advice(&self) -> String {
        let more = format!("`weir explain {}` says more", self.code);
        match &self.hint {
            Some(hint) if hint.ends_with('?') => format!("{hint} {more}"),
            Some(hint) => format!("{hint}; {more}"),
            None => more,
        }
    }
}

// === impl Severity ===

impl Severity {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

// === impl Report ===

impl Report {
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// For logs: one line for each diagnostic, and its hint on an indented second one.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            let _ = writeln!(text, "{}", diagnostic.line());
            let _ = writeln!(text, "  hint: {}", diagnostic.hint_line());
        }
        text
    }

    /// For a terminal: with the lines that are meant, and a caret below what is wrong in them.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push_str("\n\n");
        }
        text
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&diagnostic.message).id(diagnostic.code.to_string());
        let mut group = Group::with_title(title);
        match (&diagnostic.spot, &diagnostic.file) {
            (Some(spot), _) => group = self.excerpts(group, diagnostic, spot),
            (None, Some(file)) => group = group.element(Origin::path(file.to_string_lossy())),
            (None, None) => {}
        }
        group.element(Level::HELP.with_name("hint").message(diagnostic.advice()))
    }

    /// The lines of the diagnostic, and of what it refers to: in one excerpt where the file is the same.
    fn excerpts<'a>(&'a self, mut group: Group<'a>, diagnostic: &'a Diagnostic, spot: &Spot) -> Group<'a> {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            diagnostic.related.iter().partition(|related| related.spot.file == spot.file);
        let context = |related: &&'a Related| {
            let span = visible(self.sources.text(related.spot.file), &related.spot.span);
            AnnotationKind::Context.span(span).label(&*related.label)
        };
        let primary = AnnotationKind::Primary.span(visible(self.sources.text(spot.file), &spot.span));
        group =
            group.element(self.snippet(spot.file).annotation(primary).annotations(here.iter().map(context)));
        for related in &elsewhere {
            group = group.element(self.snippet(related.spot.file).annotation(context(related)));
        }
        group
    }

    fn snippet<'a, T: Clone>(&'a self, file: FileId) -> Snippet<'a, T> {
        Snippet::source(self.sources.text(file)).path(self.sources.path(file).to_string_lossy())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.lines().trim_end())
    }
}

impl std::error::Error for Report {}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.diagnostics.serialize(serializer)
    }
}

/// Texts and paths from outside can't forge a line in a log, nor move a terminal's cursor.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// A span that lies on character boundaries inside the text: what the renderer demands, and panics without.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor_char_boundary(text, span.start);
    let end = floor_char_boundary(text, span.end.max(start));
    // A fault that spans lines (a whole table) shows its first.
    let end = text[start..end].find('\n').map_or(end, |newline| start + newline);
    start..end
}
