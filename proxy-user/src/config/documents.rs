//! What comes from elsewhere: documents, pieces of configuration text that providers give; and what became of them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::diagnostic::Diagnostic;

/// One piece of configuration, as a provider gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Tells it from the provider's others: `shop/routes.toml`.
    pub name: String,
    /// What diagnostics call it: `etcd:shop/routes.toml`, or a file's path.
    pub origin: PathBuf,
    /// Where it stands, if it is a file: relative paths begin there. Otherwise they begin where the host's own
    /// configuration is.
    pub place: Option<PathBuf>,
    /// The text; or why there is none, as the end of a sentence that begins with its name:
    /// `can't be read: permission denied`.
    pub text: Result<Arc<str>, String>,
}

/// All that is known of a provider's documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supply {
    /// What its source has now, as far as anybody knows.
    pub wanted: Vec<Document>,
    /// What ran last, or runs.
    pub good: Vec<Document>,
    /// All of `wanted` belongs together: if one of them is faulty, all of `good` stays.
    pub whole: bool,
}

/// By provider.
pub type Supplies = BTreeMap<Arc<str>, Supply>;

/// What became of the documents when a configuration was made.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Those that are part of it, by provider.
    pub documents: BTreeMap<Arc<str>, Vec<Document>>,
    /// Those that are not as their source has them.
    pub faults: Vec<DocumentFault>,
    /// Names that were defined before: what is left out of documents.
    pub conflicts: Vec<Diagnostic>,
}

/// A document that could not be taken as it is.
#[derive(Debug, Clone)]
pub struct DocumentFault {
    pub provider: Arc<str>,
    pub name: String,
    pub origin: PathBuf,
    pub instead: Instead,
    /// Why. What else would be faulty with it, if it is sound itself.
    pub diagnostics: Vec<Diagnostic>,
}

/// What stands in for a faulty document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// Its last good version, or that of the whole provider.
    LastGood,
    /// It is gone at its source, but others need it: it stays.
    Itself,
    /// It is left out: it has never been good, or what was is so no longer.
    Nothing,
}

// === impl Document ===

impl Document {
    /// One that a provider calls by its own name and that of the document.
    #[must_use]
    pub fn of(provider: &str, name: &str, text: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.to_owned(),
            origin: PathBuf::from(format!("{provider}:{name}")),
            place: None,
            text: Ok(text.into()),
        }
    }
}

// === impl DocumentFault ===

impl DocumentFault {
    /// A sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let what = match self.instead {
            Instead::LastGood => "is not taken over, its last good version stays",
            Instead::Itself => "is gone at its source, and stays since others need it",
            Instead::Nothing => "is left out",
        };
        format!("document {} of provider `{}` {what}", self.origin.display(), self.provider)
    }

    /// Why, one line for each fault.
    #[must_use]
    pub fn why(&self) -> String {
        self.diagnostics.iter().map(Diagnostic::line).collect::<Vec<_>>().join("\n")
    }
}
