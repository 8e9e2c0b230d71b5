//! As written → valid: names become indices, texts become values, files are read, and whatever is wrong is reported
//! at once.
//!
//! A faulty value gives way to a harmless stand-in, so that what comes after it is looked at too. The stand-ins never
//! get out: with a single error there is no [`Config`].

mod acme;
mod admin;
mod allowlists;
mod balancing;
mod breaking;
mod collector;
mod discovery;
mod entrypoints;
mod fleet;
mod fetch;
mod globals;
mod health;
mod kubernetes;
mod https;
mod limits;
mod log;
mod maintenance;
mod merge;
mod metrics;
mod middleware;
mod pages;
mod passthrough;
mod pool;
mod process;
mod providers;
mod retry;
mod routes;
mod scalar;
mod services;
mod source_limit;
mod syn_cookies;
mod tls;
mod tracing;
mod unused;
mod variants;

use super::{code::Code, findings::Findings, model::Config, parse::Document};

/// The valid configuration, or nothing; then `findings` says why.
pub fn validate(documents: &[&Document], findings: &mut Findings) -> Option<Config> {
    let written = merge::merge(documents, findings);
    // What is missing in a broken file may be there once it is mended: no fault is made of it.
    if documents.iter().any(|document| !document.whole) {
        return None;
    }
    let mut chains = middleware::Chains::new(&written, findings);
    let entrypoints = entrypoints::all(&written, &mut chains, findings);
    let mut of_routes = variants::OfRoutes::new(&written);
    let carried = routes::carried::all(&written, findings);
    let routes = routes::all(&written, &mut chains, &mut of_routes, &carried, findings);
    let mut services = services::all(&written, findings);
    services.extend(of_routes.into_all());
    variants::lead_somewhere(&written, &services, findings);
    routes::carried::services_carry(&carried, &services, findings);
    let config = Config {
        kernel: globals::kernel(&written, findings),
        admin: admin::admin(&written, findings),
        log: log::log(&written, &routes, findings),
        process: process::process(&written, findings),
        tracing: tracing::tracing(&written, findings),
        metrics: metrics::metrics(&written, findings),
        shutdown: globals::shutdown(&written, findings),
        upgrade: globals::upgrade(&written, findings),
        state: globals::state(&written, findings),
        fleet: fleet::fleet(&written, findings),
        providers: providers::all(&written, findings),
        host: balancing::host(&written, findings),
        dns: balancing::dns(&written, findings),
        acme: acme::acme(&written, findings),
        allowlists: allowlists::all(&written, findings),
        pages: pages::all(&written, findings),
        services,
        maintenance: maintenance::all(&written, &routes, findings),
        entrypoints,
        routes,
        carried: carried.iter().map(|placed| placed.route.clone()).collect(),
        middleware: chains.into_all(),
    };
    let lost = findings.lost("entrypoint") || findings.lost_within("entrypoint");
    if written.entrypoints.items.is_empty() && !lost && !documents.is_empty() {
        let message = "there is no entrypoint: nothing would be listened on";
        let first = findings.sources.path(documents[0].file).to_owned();
        findings
            .error_without_place(Code::NoEntrypoint, Some(&first), message)
            .hint("add one: `[entrypoint.http]` with `bind = \"0.0.0.0:80\"`");
    }
    passthrough::datagrams(&carried, &config, findings);
    acme::warn(&written, &config, findings);
    source_limit::that_never_apply(&written, &config, findings);
    unused::warn(&written, &config, findings);
    (!findings.failed()).then_some(config)
}
