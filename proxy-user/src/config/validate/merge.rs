//! Several files → one configuration. Everything may stand in any of them, but only once.

use std::{collections::BTreeMap, ops::Range};

use crate::config::{
    code::Code,
    default,
    findings::Findings,
    parse::Document,
    source::FileId,
    value,
    written::{
        AccessLog, Acme, Admin, Allowlist, At, Dns, Entrypoint, Fleet, Host, Kernel, Log, Maintenance,
        Metrics, Middleware, Name, Page, Process, Provider, Route, Service, Shutdown, State, Tracing,
        Upgrade,
    },
};

/// What all files say together.
#[derive(Debug, Default)]
pub struct Merged<'a> {
    pub kernel: Option<(FileId, &'a At<Kernel>)>,
    pub admin: Option<(FileId, &'a At<Admin>)>,
    pub log: Option<(FileId, &'a At<Log>)>,
    pub process: Option<(FileId, &'a At<Process>)>,
    pub tracing: Option<(FileId, &'a At<Tracing>)>,
    pub metrics: Option<(FileId, &'a At<Metrics>)>,
    pub shutdown: Option<(FileId, &'a At<Shutdown>)>,
    pub upgrade: Option<(FileId, &'a At<Upgrade>)>,
    pub state: Option<(FileId, &'a At<State>)>,
    pub host: Option<(FileId, &'a At<Host>)>,
    pub dns: Option<(FileId, &'a At<Dns>)>,
    pub fleet: Option<(FileId, &'a At<Fleet>)>,
    pub acme: Option<(FileId, &'a At<Acme>)>,
    pub access_logs: Named<'a, AccessLog>,
    pub providers: Named<'a, Provider>,
    pub allowlists: Named<'a, Allowlist>,
    pub entrypoints: Named<'a, Entrypoint>,
    pub services: Named<'a, Service>,
    pub pages: Named<'a, Page>,
    pub middleware: Named<'a, Middleware>,
    pub routes: Vec<(FileId, &'a At<Route>)>,
    pub maintenance: Vec<(FileId, &'a At<Maintenance>)>,
}

/// The sections of one kind, in the order in which they are written. A section's place here is its id in the model.
#[derive(Debug)]
pub struct Named<'a, T> {
    pub kind: &'static str,
    pub items: Vec<Item<'a, T>>,
    by_name: BTreeMap<&'a str, usize>,
    /// What exists without being written; it comes after what is.
    built_in: &'static [&'static str],
}

#[derive(Debug)]
pub struct Item<'a, T> {
    pub file: FileId,
    pub name: &'a Name,
    pub body: &'a T,
}

pub fn merge<'a>(documents: &[&'a Document], findings: &mut Findings) -> Merged<'a> {
    let mut merged = Merged {
        access_logs: Named::new("access_log", &[]),
        providers: Named::new("provider", &[]),
        allowlists: Named::new("allowlist", &[default::CLOUDFLARE]),
        entrypoints: Named::new("entrypoint", &[]),
        services: Named::new("service", &[]),
        pages: Named::new("page", &[default::PAGE, default::ERROR_PAGE]),
        middleware: Named::new("middleware", &[]),
        ..Merged::default()
    };
    for Document { file, written, .. } in documents {
        let file = *file;
        once(&mut merged.kernel, "kernel", file, written.kernel.as_ref(), findings);
        once(&mut merged.admin, "admin", file, written.admin.as_ref(), findings);
        once(&mut merged.log, "log", file, written.log.as_ref(), findings);
        once(&mut merged.process, "process", file, written.process.as_ref(), findings);
        once(&mut merged.tracing, "tracing", file, written.tracing.as_ref(), findings);
        once(&mut merged.metrics, "metrics", file, written.metrics.as_ref(), findings);
        once(&mut merged.shutdown, "shutdown", file, written.shutdown.as_ref(), findings);
        once(&mut merged.upgrade, "upgrade", file, written.upgrade.as_ref(), findings);
        once(&mut merged.state, "state", file, written.state.as_ref(), findings);
        once(&mut merged.fleet, "fleet", file, written.fleet.as_ref(), findings);
        once(&mut merged.host, "host", file, written.host.as_ref(), findings);
        once(&mut merged.dns, "dns", file, written.dns.as_ref(), findings);
        once(&mut merged.acme, "acme", file, written.acme.as_ref(), findings);
        merged.access_logs.add(file, &written.access_log, findings);
        merged.providers.add(file, &written.provider, findings);
        merged.allowlists.add(file, &written.allowlist, findings);
        merged.entrypoints.add(file, &written.entrypoint, findings);
        merged.services.add(file, &written.service, findings);
        merged.pages.add(file, &written.page, findings);
        merged.middleware.add(file, &written.middleware, findings);
        merged.routes.extend(written.route.iter().map(|route| (file, route)));
        merged.maintenance.extend(written.maintenance.iter().map(|one| (file, one)));
    }
    merged
}

fn once<'a, T>(
    slot: &mut Option<(FileId, &'a At<T>)>,
    section: &str,
    file: FileId,
    written: Option<&'a At<T>>,
    findings: &mut Findings,
) {
    let Some(written) = written else { return };
    match slot {
        None => *slot = Some((file, written)),
        Some((first_file, first)) if findings.sources.is_given(file) => {
            let message = format!("section `{section}` is left out: it is written before");
            taken(file, &written.span, message, (*first_file, &first.span), findings);
        }
        Some((first_file, first)) => {
            let message = format!("section `{section}` is written in two files");
            findings
                .error(Code::DefinedTwice, file, &written.span, message)
                .related(*first_file, &first.span, "first written here")
                .hint("keep one of the two");
        }
    }
}

/// Of two that come from elsewhere the first counts, whatever the second says.
fn taken(
    file: FileId,
    span: &Range<usize>,
    message: String,
    first: (FileId, &Range<usize>),
    findings: &mut Findings,
) {
    findings
        .warning(Code::NameTaken, file, span, message)
        .related(first.0, first.1, "this one counts")
        .hint("keep one of the two");
}

// === impl Named ===

impl<'a, T> Named<'a, T> {
    fn new(kind: &'static str, built_in: &'static [&'static str]) -> Self {
        Self { kind, items: Vec::new(), by_name: BTreeMap::new(), built_in }
    }

    fn add(&mut self, file: FileId, section: &'a BTreeMap<Name, At<T>>, findings: &mut Findings) {
        let mut written: Vec<_> = section.iter().collect();
        written.sort_by_key(|(name, _)| name.span.start);
        for (name, body) in written {
            if let Err(refusal) = value::name(&name.value) {
                let message =
                    format!("the {} name {} {}", self.kind, value::quoted(&name.value), refusal.because);
                findings.error(Code::BadName, file, &name.span, message);
            }
            if let Some(first) = self.by_name.get(&*name.value).map(|first| &self.items[*first]) {
                if findings.sources.is_given(file) {
                    let message = format!("{} `{}` is left out: it is defined before", self.kind, name.value);
                    taken(file, &name.span, message, (first.file, &first.name.span), findings);
                    continue;
                }
                let message = format!("{} `{}` is defined twice", self.kind, name.value);
                findings
                    .error(Code::DefinedTwice, file, &name.span, message)
                    .related(first.file, &first.name.span, "first defined here")
                    .hint("keep one of the two");
                continue;
            }
            self.by_name.insert(&name.value, self.items.len());
            self.items.push(Item { file, name, body: &body.value });
        }
    }

    /// The id of what has that name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<usize> {
        let built_in = || self.built_in().position(|built_in| built_in == name);
        self.by_name.get(name).copied().or_else(|| built_in().map(|nth| self.items.len() + nth))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().copied().chain(self.built_in().map(|name| -> &str { name }))
    }

    /// What is built in, and not replaced by the files: in this order it comes after what is written.
    pub fn built_in(&self) -> impl Iterator<Item = &'static str> {
        self.built_in.iter().copied().filter(|name| !self.by_name.contains_key(name))
    }

    /// The id that `written` refers to; a fault with a suggestion if there is none of that name. Nothing is said of one
    /// that is there but faulty.
    pub fn refer(
        &self,
        file: FileId,
        written: &At<String>,
        by: &str,
        code: Code,
        findings: &mut Findings,
    ) -> Option<usize> {
        let id = self.id(&written.value);
        if id.is_none() && !findings.lost(&format!("{}.{}", self.kind, written.value)) {
            let name = value::quoted(&written.value);
            let message = format!("{by} {} {name}, which does not exist", self.kind);
            let finding = findings.error(code, file, &written.span, message);
            let suggestion = value::nearest(&written.value, self.names());
            match suggestion {
                Some(_) => finding.suggest(suggestion),
                None => finding.hint(
                    value::choice(self.names())
                        .unwrap_or_else(|| format!("define it as `[{}.{}]`", self.kind, written.value)),
                ),
            };
        }
        id
    }
}

impl<T> Default for Named<'_, T> {
    fn default() -> Self {
        Self::new("", &[])
    }
}
