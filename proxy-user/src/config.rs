//! Configuration: as written (`written`) → valid (`model`) → running ([`crate::snapshot`]).
//!
//! [`load`] reads files and gives either a whole, valid [`model::Config`] or a [`Report`] with every fault that it
//! found. It changes nothing and keeps nothing: a bad file can do no harm.

mod assemble;
mod code;
mod default;
pub mod diff;
mod diagnostic;
pub mod documents;
pub mod effective;
mod findings;
mod gather;
pub mod inline;
pub mod model;
pub mod moment;
mod parse;
mod recover;
mod reference;
mod schema;
mod settle;
mod source;
mod unsupported;
mod validate;
mod value;
mod written;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use documents::{Supplies, Taken};
use findings::Findings;
use source::FileId;

pub use code::Code;
pub use diagnostic::{Diagnostic, Related, Report, Severity};
pub(crate) use gather::{reason as reason_of, text as text_of};
pub use reference::{reference_markdown, with_reference, write_docs};
pub(crate) use schema::root as schema_tree;
pub use schema::schema;
pub(crate) use source::SAID_BY;
pub(crate) use value::{
    duration as parse_duration, host as parse_host, judge_steps as steps_of_judge, name as is_name, nearest,
    path_prefix as parse_path, prefix as parse_prefix, quoted, share as parse_share, show as show_duration,
    show_share, show_size,
};

/// What `weir run` uses without being told.
pub const DEFAULT_PATH: &str = "/etc/weir/weir.toml";

/// What the built-in allowlist `cloudflare` holds before its first fetch.
pub const BUILT_IN_PREFIXES: &[&str] = default::CLOUDFLARE_PREFIXES;

/// Where commands find the daemon without being told.
pub const DEFAULT_ADMIN_SOCKET: &str = default::ADMIN_SOCKET;
pub const DEFAULT_ADMIN_TCP: &str = default::ADMIN;

/// The configuration that always starts: for trying Weir, and a model to copy.
pub const EMBEDDED: &str = include_str!("config/default.toml");

/// What the embedded default calls itself where a file would be named.
pub const EMBEDDED_PATH: &str = "<embedded default>";

/// A valid configuration, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: model::Config,
    pub warnings: Vec<Diagnostic>,
    /// Everything that was read: configuration files and their folders, certificates and keys, pages, list files. What a
    /// watcher watches.
    pub files: Vec<PathBuf>,
    /// What became of the documents that providers gave.
    pub taken: Taken,
    report: Report,
}

/// Reads the configuration in `path`: a file, or a folder whose `*.toml` are merged. For [`DEFAULT_PATH`], the `*.toml`
/// of a folder `conf.d` beside it are merged too.
///
/// # Errors
/// With every fault that was found, and the warnings too.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_with(path, &Supplies::new())
}

/// As [`load`], with what providers give.
///
/// # Errors
/// As [`load`]: faults of documents alone are none.
pub fn load_with(path: &Path, supplies: &Supplies) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather(path, &mut findings);
    finish(&files, folder_of(path), supplies, findings)
}

/// What the host's own files say of who Weir runs as and where things are, whatever may be wrong with the rest: what is
/// needed before anybody can be asked for documents.
///
/// # Errors
/// As [`load`].
pub fn load_bare(path: &Path) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather(path, &mut findings);
    let config = assemble::bare(&files, &mut findings);
    loaded(config, findings, Taken::default())
}

/// Likewise, if `text` stood in the file `path`.
///
/// # Errors
/// As [`load`].
pub fn load_bare_as(path: &Path, name: &Path, text: &str) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather_with_text(path, name, text, &mut findings);
    let config = assemble::bare(&files, &mut findings);
    loaded(config, findings, Taken::default())
}

/// As [`load_with`], to take the place of `running`: a certificate that can't be read this time stays what it is, with a
/// warning, instead of holding up everything else.
///
/// # Errors
/// As [`load`].
pub fn load_again(path: &Path, supplies: &Supplies, running: Arc<model::Config>) -> Result<Loaded, Report> {
    let mut findings = Findings::in_place_of(running);
    let files = gather::gather(path, &mut findings);
    finish(&files, folder_of(path), supplies, findings)
}

/// What [`load_with`] would give if `text` stood in the file `path`. Messages call the text `name`.
///
/// # Errors
/// As [`load`].
pub fn load_as(path: &Path, name: &Path, text: &str, supplies: &Supplies) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather_with_text(path, name, text, &mut findings);
    finish(&files, folder_of(path), supplies, findings)
}

/// A duration as configurations write it: `250ms`, `1s`, `5m`, `1h`.
///
/// # Errors
/// A sentence about what is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    value::duration(text).map_err(|refusal| {
        let hint = refusal.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("`{text}` {}{hint}", refusal.because)
    })
}

/// Reads a configuration from a text; `path` is what it is called, and where relative paths in it begin.
///
/// # Errors
/// As [`load`].
pub fn load_text(path: &Path, text: &str) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let file = findings.sources.add(path.to_owned(), text);
    finish(&[file], folder_of(path), &Supplies::new(), findings)
}

/// What documents say by themselves, beside nothing: `supplies` holds those of the one provider `name`.
///
/// # Errors
/// As [`load`]: faults of documents are in [`Loaded::taken`].
pub fn load_documents(name: &str, supplies: &Supplies) -> Result<Loaded, Report> {
    // Never read from anywhere: it only says that there is such a provider, and an entrypoint as the hosts have them.
    let own = format!(
        "[provider.{name}]\nkind = \"directory\"\npath = \"/\"\n[entrypoint.of-the-hosts]\nbind = \"127.0.0.1:1\"\n"
    );
    let path = Path::new(DEFAULT_PATH);
    let mut findings = Findings::default();
    let file = findings.sources.add(path.to_owned(), own);
    finish(&[file], folder_of(path), supplies, findings)
}

/// The configuration for a host where none was written. It reads no file.
///
/// # Panics
/// If this build's own default were faulty, which its tests rule out.
#[must_use]
pub fn embedded_default() -> Loaded {
    match load_text(Path::new(EMBEDDED_PATH), EMBEDDED) {
        Ok(loaded) => loaded,
        Err(report) => unreachable!("the embedded default is valid: {report}"),
    }
}

/// Where relative paths in documents begin: where the host's own configuration is.
fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

fn finish(
    files: &[FileId],
    folder: &Path,
    supplies: &Supplies,
    findings: Findings,
) -> Result<Loaded, Report> {
    let assembled = assemble::assemble(files, folder, supplies, findings);
    let mut findings = assembled.findings;
    findings.add_all(assembled.taken.faults.iter().flat_map(|fault| fault.diagnostics.clone()));
    loaded(assembled.config, findings, assembled.taken)
}

fn loaded(config: Option<model::Config>, findings: Findings, taken: Taken) -> Result<Loaded, Report> {
    let report = findings.into_report();
    let Some(config) = config else { return Err(report) };
    let warnings = report.diagnostics.iter().filter(|one| one.severity == Severity::Warning);
    Ok(Loaded { config, warnings: warnings.cloned().collect(), files: report.files.clone(), taken, report })
}

impl Loaded {
    /// All that was found, faults of documents too.
    #[must_use]
    pub fn into_report(self) -> Report {
        self.report
    }

    /// The warnings, to be rendered like faults.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}
