//! The host's own files and what providers give → one configuration.
//!
//! The host's own files come first, and a fault in them is a fault of the whole. A document that is faulty isn't: its last
//! good version stays, or it is left out, and that is told. Which of them go is for [`super::settle`] to say; here is what
//! it asks: does it hold like this, and if not, who is to blame?

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    code::Code,
    diagnostic::{Diagnostic, Severity},
    documents::{Document, DocumentFault, Instead, Supplies, Taken},
    findings::Findings,
    model::Config,
    parse,
    settle::{self, Slot, Take},
    source::FileId,
    validate,
    written::Written,
};
use crate::config::default;

/// What holds together in the end.
pub struct Assembled {
    pub config: Option<Config>,
    pub findings: Findings,
    pub taken: Taken,
}

/// A document with the versions of it that there are.
struct Candidate {
    provider: Arc<str>,
    name: String,
    group: Option<usize>,
    wanted: Option<Arc<Version>>,
    good: Option<Arc<Version>>,
}

struct Version {
    document: Document,
    /// As far as it is sound; else what is wrong with it.
    parsed: Result<parse::Document, Vec<Diagnostic>>,
}

/// Why documents could not be taken: what was found first counts, for that is about what their sources have.
#[derive(Default)]
struct Reasons {
    by_candidate: BTreeMap<usize, Vec<Diagnostic>>,
    /// What was faulty in the host's own files.
    own: Vec<Diagnostic>,
}

/// What came of one choice.
struct Trial {
    takes: Vec<Take>,
    config: Option<Config>,
    findings: Findings,
    /// By candidate.
    faults: BTreeMap<usize, Vec<Diagnostic>>,
}

/// All of `files` and what is best of `supplies`. `folder` is where relative paths in documents begin.
pub fn assemble(files: &[FileId], folder: &Path, supplies: &Supplies, mut findings: Findings) -> Assembled {
    let own: Vec<_> = files.iter().map(|file| parse::parse(*file, &mut findings)).collect();
    let candidates = candidates(&own, folder, supplies, &mut findings);
    if candidates.is_empty() {
        let config = validate::validate(&own.iter().collect::<Vec<_>>(), &mut findings);
        return Assembled { config, findings, taken: Taken::default() };
    }
    let slots: Vec<_> = candidates.iter().map(Candidate::slot).collect();
    // Why each version that was tried could not be taken: the first reasons are those of what its source has.
    let mut reasons = Reasons::default();
    let mut last = None;
    let takes = settle::settle(&slots, |takes| {
        let trial = attempt(&own, &candidates, takes, &mut findings);
        reasons.note(&trial);
        let blamed = trial.blamed();
        last = Some(trial);
        blamed
    });
    let trial = match last {
        Some(trial) if trial.takes == takes => trial,
        _ => attempt(&own, &candidates, &takes, &mut findings),
    };
    conclude(trial, &candidates, &reasons)
}

/// The host's own files as far as they say who Weir runs as and where things are: what is needed before anybody can be asked
/// for documents. Everything else may depend on those, so nothing is said of it.
pub fn bare(files: &[FileId], findings: &mut Findings) -> Option<Config> {
    let mut own: Vec<_> = files.iter().map(|file| parse::parse(*file, findings)).collect();
    for document in &mut own {
        let written = std::mem::take(&mut document.written);
        document.written = Written {
            kernel: written.kernel,
            admin: written.admin,
            log: written.log,
            access_log: written.access_log,
            process: written.process,
            state: written.state,
            provider: written.provider,
            fleet: written.fleet,
            ..Written::default()
        };
    }
    for section in ["entrypoint", "service", "route", "page", "middleware", "allowlist"] {
        findings.lose(section);
    }
    validate::validate(&own.iter().collect::<Vec<_>>(), findings)
}

/// In the order in which they count.
fn candidates(
    own: &[parse::Document],
    folder: &Path,
    supplies: &Supplies,
    findings: &mut Findings,
) -> Vec<Candidate> {
    let written = own.iter().flat_map(|document| &document.written.provider);
    let mut order: Vec<_> = written
        .map(|(name, body)| {
            let order = body.value.order.as_ref().map_or(i64::from(default::PROVIDER_ORDER), |at| at.value);
            (order, name.value.as_str())
        })
        .collect();
    order.sort_unstable();
    order.dedup();
    let mut candidates = Vec::new();
    for (group, (_, provider)) in order.into_iter().enumerate() {
        let Some((provider, supply)) = supplies.get_key_value(provider) else { continue };
        let wanted: BTreeMap<_, _> = supply.wanted.iter().map(|one| (one.name.as_str(), one)).collect();
        let good: BTreeMap<_, _> = supply.good.iter().map(|one| (one.name.as_str(), one)).collect();
        let names: BTreeSet<_> = wanted.keys().chain(good.keys()).copied().collect();
        for name in names {
            let (wanted, good) = (wanted.get(name), good.get(name));
            let same = wanted == good;
            let wanted = wanted.map(|one| Arc::new(Version::of(one, folder, findings)));
            let good = match good {
                Some(_) if same => wanted.clone(),
                Some(one) => Some(Arc::new(Version::of(one, folder, findings))),
                None => None,
            };
            candidates.push(Candidate {
                provider: provider.clone(),
                name: name.to_owned(),
                group: supply.whole.then_some(group),
                wanted,
                good,
            });
        }
    }
    candidates
}

/// Whether a choice holds.
fn attempt(
    own: &[parse::Document],
    candidates: &[Candidate],
    takes: &[Take],
    findings: &mut Findings,
) -> Trial {
    let mut faults: BTreeMap<usize, Vec<Diagnostic>> = BTreeMap::new();
    let mut by_file = BTreeMap::new();
    let mut all: Vec<&parse::Document> = own.iter().collect();
    for (nth, version) in
        candidates.iter().enumerate().filter_map(|(nth, one)| Some((nth, one.version(takes[nth])?)))
    {
        match &version.parsed {
            Ok(document) => {
                by_file.insert(document.file, nth);
                all.push(document);
            }
            Err(diagnostics) => _ = faults.insert(nth, diagnostics.clone()),
        }
    }
    let mut trial = findings.fork();
    // What is not even TOML is left out first: what others miss of it is no fault of theirs.
    let config = if faults.is_empty() { validate::validate(&all, &mut trial) } else { None };
    let errors = trial.diagnostics().iter().filter(|one| one.severity == Severity::Error);
    for (nth, error) in errors.filter_map(|one| {
        let file = trial.sources.whole(one.source()?);
        Some((*by_file.get(&file)?, one))
    }) {
        faults.entry(nth).or_default().push(error.clone());
    }
    // The texts go on to the next choice.
    findings.sources = trial.sources.clone();
    Trial { takes: takes.to_vec(), config, findings: trial, faults }
}

fn conclude(trial: Trial, candidates: &[Candidate], reasons: &Reasons) -> Assembled {
    let mut taken = Taken::default();
    let mut faulty = BTreeMap::new();
    for (nth, (candidate, take)) in candidates.iter().zip(&trial.takes).enumerate() {
        let version = candidate.version(*take);
        if let Some(version) = version {
            let of_provider = taken.documents.entry(candidate.provider.clone()).or_default();
            of_provider.push(version.document.clone());
        }
        if *take == Take::Wanted || (*take == Take::Good && candidate.slot().same) {
            continue;
        }
        faulty.insert(
            nth,
            match (version, &candidate.wanted) {
                (Some(_), Some(_)) => Instead::LastGood,
                (Some(_), None) => Instead::Itself,
                (None, _) => Instead::Nothing,
            },
        );
    }
    for (nth, instead) in &faulty {
        let candidate = &candidates[*nth];
        taken.faults.push(DocumentFault {
            provider: candidate.provider.clone(),
            name: candidate.name.clone(),
            origin: candidate.origin(),
            instead: *instead,
            diagnostics: reasons.of(*nth, |other| faulty.contains_key(&other)),
        });
    }
    let clashes = trial.findings.diagnostics().iter().filter(|one| one.code == Code::NameTaken);
    taken.conflicts = clashes.cloned().collect();
    Assembled { config: trial.config, findings: trial.findings, taken }
}

// === impl Reasons ===

impl Reasons {
    fn note(&mut self, trial: &Trial) {
        for (nth, faults) in &trial.faults {
            self.by_candidate.entry(*nth).or_insert_with(|| faults.clone());
        }
        if self.own.is_empty() && trial.faults.is_empty() {
            let errors = trial.findings.diagnostics().iter();
            self.own = errors.filter(|one| one.severity == Severity::Error).cloned().collect();
        }
    }

    /// Of one that is sound itself: what would be faulty with it, in others that stay as they are.
    fn of(&self, nth: usize, faulty: impl Fn(usize) -> bool) -> Vec<Diagnostic> {
        if let Some(own) = self.by_candidate.get(&nth) {
            return own.clone();
        }
        let others = self.by_candidate.iter().filter(|(other, _)| !faulty(**other));
        others.flat_map(|(_, diagnostics)| diagnostics).chain(&self.own).cloned().collect()
    }
}

// === impl Candidate ===

impl Candidate {
    fn slot(&self) -> Slot {
        let same = match (&self.wanted, &self.good) {
            (Some(wanted), Some(good)) => Arc::ptr_eq(wanted, good),
            _ => false,
        };
        Slot { wanted: self.wanted.is_some(), good: self.good.is_some(), same, group: self.group }
    }

    fn version(&self, take: Take) -> Option<&Version> {
        match take {
            Take::Wanted => self.wanted.as_deref(),
            Take::Good => self.good.as_deref(),
            Take::Nothing => None,
        }
    }

    fn origin(&self) -> PathBuf {
        let one = self.wanted.as_ref().or(self.good.as_ref());
        one.map_or_else(|| self.name.clone().into(), |one| one.document.origin.clone())
    }
}

// === impl Version ===

impl Version {
    fn of(document: &Document, folder: &Path, findings: &mut Findings) -> Self {
        let mut aside = findings.aside();
        let parsed = match &document.text {
            Ok(text) => {
                let place = document.place.clone().unwrap_or_else(|| folder.join("document"));
                let file = aside.sources.add_given(document.origin.clone(), place, text.clone());
                let parsed = parse::parse(file, &mut aside);
                of_the_host(&parsed, &mut aside);
                Some(parsed)
            }
            Err(why) => {
                aside.error_without_place(Code::Unreadable, Some(&document.origin), why.clone());
                None
            }
        };
        let failed = aside.failed();
        let diagnostics = aside.diagnostics().to_vec();
        findings.sources = aside.sources;
        let parsed = match parsed {
            Some(parsed) if !failed => Ok(parsed),
            _ => Err(diagnostics),
        };
        Self { document: document.clone(), parsed }
    }
}

/// Sections that are not for others to write.
fn of_the_host(document: &parse::Document, findings: &mut Findings) {
    let Written { kernel, admin, log, access_log, process, state, provider, fleet, .. } = &document.written;
    let sections = [
        ("kernel", kernel.as_ref().map(|at| &at.span)),
        ("admin", admin.as_ref().map(|at| &at.span)),
        // With a place and a template, a log could write anything that root may write.
        ("log", log.as_ref().map(|at| &at.span)),
        ("access_log", access_log.keys().next().map(|name| &name.span)),
        ("process", process.as_ref().map(|at| &at.span)),
        ("state", state.as_ref().map(|at| &at.span)),
        ("provider", provider.keys().next().map(|name| &name.span)),
        ("fleet", fleet.as_ref().map(|at| &at.span)),
    ];
    for (section, span) in sections {
        let Some(span) = span else { continue };
        let message = format!("`[{section}]` is for the host's own configuration to say");
        findings
            .error(Code::NotFromElsewhere, document.file, span, message)
            .hint("take it out of the document; write it in the file that `weir run` is started with");
    }
}

// === impl Trial ===

impl Trial {
    /// For [`settle::settle`].
    fn blamed(&self) -> Vec<Option<usize>> {
        let mut blamed: Vec<_> = self.faults.keys().copied().map(Some).collect();
        let own_faults = self.config.is_none() && blamed.is_empty();
        if own_faults {
            blamed.push(None);
        }
        blamed
    }
}
