//! What has been found so far: the faults, the texts they point into, and what was left out because of them.

use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    code::Code,
    diagnostic::{Diagnostic, Report, Severity},
    model::Config,
    source::{FileId, Sources, Spot},
};
use crate::tls::certificates::Certificates;

#[derive(Debug, Default)]
pub struct Findings {
    pub sources: Sources,
    diagnostics: Vec<Diagnostic>,
    /// Everything that was read or looked for.
    files: BTreeSet<PathBuf>,
    /// Dotted paths of what was written but is faulty. What is lost is not missing too: one fault, one report.
    lost: BTreeSet<String>,
    /// What runs, when this is to take its place: what can't be read this time may be had from there.
    running: Option<Arc<Config>>,
}

/// A diagnostic to which more may be said.
pub struct Finding<'a> {
    sources: &'a Sources,
    diagnostics: &'a mut Vec<Diagnostic>,
}

// === impl Findings ===

impl Findings {
    pub fn in_place_of(running: Arc<Config>) -> Self {
        Self { running: Some(running), ..Self::default() }
    }

    /// The certificates that the entrypoint of this name uses now.
    pub fn certificates_before(&self, entrypoint: &str) -> Option<Arc<Certificates>> {
        let known = self.running.as_ref()?.entrypoints.iter().find(|known| *known.name == *entrypoint)?;
        Some(known.tls.as_ref()?.certificates.clone())
    }

    /// Those that the admin interface uses now.
    pub fn admin_certificates_before(&self) -> Option<Arc<Certificates>> {
        Some(self.running.as_ref()?.admin.tls.as_ref()?.certificates.clone())
    }

    /// The same once more, with the texts of the first, which has none until it gets them back.
    pub fn fork(&mut self) -> Self {
        Self {
            sources: std::mem::take(&mut self.sources),
            diagnostics: self.diagnostics.clone(),
            files: self.files.clone(),
            lost: self.lost.clone(),
            running: self.running.clone(),
        }
    }

    /// Empty ones, to look at a single text; with the texts of the first, as [`Findings::fork`].
    pub fn aside(&mut self) -> Self {
        Self { sources: std::mem::take(&mut self.sources), ..Self::default() }
    }

    /// What has been found so far.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// What has been found elsewhere.
    pub fn add_all(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        self.diagnostics.extend(diagnostics);
    }

    pub fn error(
        &mut self,
        code: Code,
        file: FileId,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Finding<'_> {
        let spot = Spot { file, span: span.clone() };
        self.add(Diagnostic::new(code, Severity::Error, message).at(&self.sources, spot))
    }

    pub fn warning(
        &mut self,
        code: Code,
        file: FileId,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Finding<'_> {
        let spot = Spot { file, span: span.clone() };
        self.add(Diagnostic::new(code, Severity::Warning, message).at(&self.sources, spot))
    }

    /// A fault of a whole file, or of the configuration as a whole.
    pub fn error_without_place(
        &mut self,
        code: Code,
        file: Option<&Path>,
        message: impl Into<String>,
    ) -> Finding<'_> {
        let diagnostic = Diagnostic::new(code, Severity::Error, message);
        self.add(match file {
            Some(file) => diagnostic.in_file(file.to_owned()),
            None => diagnostic,
        })
    }

    fn add(&mut self, diagnostic: Diagnostic) -> Finding<'_> {
        self.diagnostics.push(diagnostic);
        Finding { sources: &self.sources, diagnostics: &mut self.diagnostics }
    }

    pub fn watch(&mut self, path: &Path) {
        self.files.insert(path.to_owned());
    }

    pub fn lose(&mut self, path: impl Into<String>) {
        self.lost.insert(path.into());
    }

    /// Whether `path`, or what it would be in, was written but is faulty.
    #[must_use]
    pub fn lost(&self, path: &str) -> bool {
        let mut path = path;
        loop {
            if self.lost.contains(path) {
                return true;
            }
            match path.rsplit_once('.') {
                Some((above, _)) => path = above,
                None => return false,
            }
        }
    }

    /// Whether something in `path` was written but is faulty.
    #[must_use]
    pub fn lost_within(&self, path: &str) -> bool {
        self.lost.iter().any(|lost| lost.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Whether there is a finding about this part of a file. What is missing there may be what that one took out.
    #[must_use]
    pub fn found_within(&self, file: FileId, part: &Range<usize>) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.is_within(file, part))
    }

    #[must_use]
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// How many findings there are so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.diagnostics.len()
    }

    #[must_use]
    pub fn into_report(mut self) -> Report {
        self.diagnostics.sort_by_key(Diagnostic::order);
        Report {
            diagnostics: self.diagnostics,
            files: self.files.into_iter().collect(),
            sources: self.sources,
        }
    }
}

// === impl Finding ===

impl Finding<'_> {
    pub fn hint(self, hint: impl Into<String>) -> Self {
        self.change(|diagnostic, _| diagnostic.hint(&hint.into()))
    }

    /// `did you mean …?`, where there is something to suggest.
    pub fn suggest(self, suggestion: Option<&str>) -> Self {
        match suggestion {
            Some(suggestion) => self.hint(format!("did you mean `{suggestion}`?")),
            None => self,
        }
    }

    pub fn maybe_hint(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub fn related(self, file: FileId, span: &Range<usize>, label: impl Into<String>) -> Self {
        let spot = Spot { file, span: span.clone() };
        self.change(|diagnostic, sources| diagnostic.related(sources, spot, label))
    }

    fn change(self, change: impl FnOnce(Diagnostic, &Sources) -> Diagnostic) -> Self {
        if let Some(diagnostic) = self.diagnostics.pop() {
            self.diagnostics.push(change(diagnostic, self.sources));
        }
        self
    }
}
