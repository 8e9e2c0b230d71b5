//! Configuration: as written (`written`) → valid (`model`) → running ([`crate::snapshot`]).
//!
//! [`load`] reads files and gives either a whole, valid [`model::Config`] or a [`Report`] with every fault that it
//! found. It changes nothing and keeps nothing: a bad file can do no harm.

mod code;
mod default;
pub mod diff;
mod diagnostic;
pub mod effective;
mod findings;
mod gather;
pub mod model;
pub mod moment;
mod parse;
mod recover;
mod reference;
mod schema;
mod source;
mod unsupported;
mod validate;
mod value;
mod written;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use findings::Findings;
use source::FileId;

pub use code::Code;
pub use diagnostic::{Diagnostic, Related, Report, Severity};
pub use reference::{reference_markdown, with_reference, write_docs};
pub use schema::schema;
pub(crate) use value::{
    duration as parse_duration, host as parse_host, judge_steps as steps_of_judge, nearest,
    path_prefix as parse_path, prefix as parse_prefix, quoted, share as parse_share, show as show_duration,
    show_share,
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
    report: Report,
}

/// Reads the configuration in `path`: a file, or a folder whose `*.toml` are merged. For [`DEFAULT_PATH`], the `*.toml`
/// of a folder `conf.d` beside it are merged too.
///
/// # Errors
/// With every fault that was found, and the warnings too.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather(path, &mut findings);
    finish(&files, findings)
}

/// As [`load`], to take the place of `running`: a certificate that can't be read this time stays what it is, with a
/// warning, instead of holding up everything else.
///
/// # Errors
/// As [`load`].
pub fn load_again(path: &Path, running: Arc<model::Config>) -> Result<Loaded, Report> {
    let mut findings = Findings::in_place_of(running);
    let files = gather::gather(path, &mut findings);
    finish(&files, findings)
}

/// What [`load`] would give if `text` stood in the file `path`. Messages call the text `name`.
///
/// # Errors
/// As [`load`].
pub fn load_as(path: &Path, name: &Path, text: &str) -> Result<Loaded, Report> {
    let mut findings = Findings::default();
    let files = gather::gather_with_text(path, name, text, &mut findings);
    finish(&files, findings)
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
    finish(&[file], findings)
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

fn finish(files: &[FileId], mut findings: Findings) -> Result<Loaded, Report> {
    let documents: Vec<_> = files.iter().map(|file| parse::parse(*file, &mut findings)).collect();
    let config = validate::validate(&documents, &mut findings);
    let report = findings.into_report();
    match config {
        Some(config) => {
            Ok(Loaded { config, warnings: report.diagnostics.clone(), files: report.files.clone(), report })
        }
        None => Err(report),
    }
}

impl Loaded {
    /// The warnings, to be rendered like faults.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}
