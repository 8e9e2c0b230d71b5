//! Traefik: the static configuration's entrypoints, and routers, services and middlewares of the file provider; those of TCP and
//! UDP become passthrough ([`carried`]).

mod carried;
mod entrypoints;
mod middleware;
mod rule;
mod services;
pub mod tree;

use std::collections::BTreeMap;

use toml::Value;

use super::{
    Draft, ImportFault, Source,
    draft::{Kind, table_of},
};
use middleware::Made;
use tree::Node;

/// Imports files that Traefik would read together.
///
/// # Errors
/// When one of them is neither YAML nor TOML.
pub fn import(sources: &[Source]) -> Result<Draft, ImportFault> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(tree::parse(source)?);
    }
    Ok(convert(&all))
}

pub(crate) struct Traefik<'a> {
    draft: Draft,
    documents: &'a [Node],
    /// By Traefik's names, without `@provider`.
    entrypoints: BTreeMap<String, entrypoints::Entrypoint>,
    services: BTreeMap<&'a str, String>,
    /// Those of TCP and of UDP, whose names are their own.
    carrying: BTreeMap<(&'static str, &'a str), String>,
    middleware: BTreeMap<&'a str, Made>,
    /// What is asked for while it is being made: services may name each other in a circle.
    underway: Vec<&'a str>,
}

/// Makes a draft of parsed documents. Pure.
#[must_use]
pub fn convert(documents: &[Node]) -> Draft {
    let mut traefik = Traefik {
        draft: Draft::new("Traefik"),
        documents,
        entrypoints: BTreeMap::new(),
        services: BTreeMap::new(),
        carrying: BTreeMap::new(),
        middleware: BTreeMap::new(),
        underway: Vec::new(),
    };
    traefik.look_around();
    traefik.static_entrypoints();
    for (name, router) in traefik.all(&["http", "routers"]) {
        traefik.router(name, router);
    }
    for (name, _) in traefik.all(&["http", "services"]) {
        traefik.service(name);
    }
    traefik.carried();
    traefik.write_entrypoints();
    traefik.draft
}

impl<'a> Traefik<'a> {
    /// Everything of one kind, in all documents.
    fn all(&self, path: &[&str]) -> Vec<(&'a str, &'a Node)> {
        let documents: &'a [Node] = self.documents;
        let found = documents.iter().filter_map(|document| document.at(path));
        found.flat_map(|node| node.entries().iter().map(|(name, node)| (name.as_str(), node))).collect()
    }

    fn one(&self, path: &[&str], name: &str) -> Option<(&'a str, &'a Node)> {
        self.all(path).into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// What has no counterpart as a whole.
    fn look_around(&mut self) {
        const OF_TRAEFIK: &[&str] =
            &["accesslog", "api", "experimental", "global", "log", "metrics", "ping", "providers", "tracing"];
        const READ: &[&str] =
            &["certificatesresolvers", "entrypoints", "http", "serverstransport", "tcp", "tls", "udp"];
        let documents: &'a [Node] = self.documents;
        for document in documents {
            if document.get("apiVersion").is_some() {
                let what = format!("kind: {}", document.text_of("kind").unwrap_or("?"));
                let why = "objects of Kubernetes are not imported, only Traefik's own files";
                self.draft.leave(&document.place, &what, why);
                continue;
            }
            for (key, node) in document.entries() {
                let lower = key.to_ascii_lowercase();
                let why = match lower.as_str() {
                    key if OF_TRAEFIK.contains(&key) || READ.contains(&key) => continue,
                    "services" => "labels of containers are not imported, only Traefik's own files",
                    _ => "it has no counterpart here",
                };
                self.draft.leave(&node.place, key, why);
            }
            for (key, node) in document.get("http").map(Node::entries).unwrap_or_default() {
                if !matches!(
                    key.to_ascii_lowercase().as_str(),
                    "routers" | "services" | "middlewares" | "serverstransports"
                ) {
                    self.draft.leave(&node.place, &format!("http.{key}"), "it has no counterpart here");
                }
            }
            if let Some(options) = document.at(&["tls", "options"]) {
                let clients =
                    options.entries().iter().any(|(_, options)| options.get("clientAuth").is_some());
                if clients {
                    let why = "client certificates are asked for by the entrypoint's `tls.client_ca`";
                    self.draft.leave_guard(&[], &options.place, "tls.options with clientAuth", why);
                } else {
                    self.draft.leave(
                        &options.place,
                        "tls.options",
                        "Weir's own choice of TLS is Mozilla's `intermediate`",
                    );
                }
            }
        }
    }

    fn router(&mut self, name: &'a str, router: &'a Node) {
        let entrypoints = self.entrypoints_of(router);
        let rule = router.text_of("rule").unwrap_or_default();
        let routes = match rule::routes(rule) {
            Ok(routes) => routes,
            Err(why) => {
                let place = router.get("rule").map_or(&router.place, |rule| &rule.place);
                self.draft.leave_guard(&entrypoints, place, &format!("router {name}: {rule}"), &why);
                return;
            }
        };
        self.tls_of(router, &entrypoints, &routes);
        let mut chain = Vec::new();
        self.chain(&router.texts_of("middlewares"), &entrypoints, router, &mut chain);
        let redirects = chain.iter().any(|name: &String| {
            let section = self.draft.find(Kind::Middleware, name);
            section.is_some_and(|section| self.draft.get(section, "redirect").is_some())
        });
        let asked = router.text_of("service").unwrap_or_default();
        // Traefik's own (`api@internal`) are no service of the same name in a file.
        let service = if asked.ends_with("@internal") { None } else { self.service(plain(asked)) };
        if service.is_none() && !redirects {
            let why = format!("there is no service `{asked}` that serves HTTP");
            self.draft.leave_guard(&entrypoints, &router.place, &format!("router {name}"), &why);
            return;
        }
        for conditions in routes {
            let route = self.draft.add(Kind::Route, plain(name), &router.place);
            let name = self.draft.sections[route].name.clone();
            self.draft.set(route, "name", name);
            if !entrypoints.is_empty() {
                self.draft.set(route, "entrypoint", strings(&entrypoints));
            }
            for (key, value) in conditions {
                self.draft.set(route, &key, value);
            }
            if let Some(priority) = router.number_of("priority").filter(|priority| *priority != 0) {
                self.draft.set(route, "priority", priority.clamp(-1000, 1000));
            }
            if !chain.is_empty() {
                self.draft.set(route, "middleware", strings(&chain));
            }
            if let Some(service) = &service {
                self.draft.set(route, "service", service.as_str());
            }
        }
    }

    /// The names of Weir's middleware for those of Traefik.
    fn chain(&mut self, names: &[&'a str], entrypoints: &[String], asks: &Node, chain: &mut Vec<String>) {
        for name in names {
            match self.middleware(plain(name), 0) {
                Made::Chain(several) => {
                    chain
                        .extend(several.into_iter().filter(|name| !chain.contains(name)).collect::<Vec<_>>());
                }
                Made::Harmless => {}
                Made::Guard { place, what, why } => self.draft.leave_guard(entrypoints, &place, &what, &why),
                Made::Missing => {
                    let why = "it is in none of these files: name the one it is in, too";
                    self.draft.leave_guard(entrypoints, &asks.place, &format!("middleware {name}"), why);
                }
            }
        }
    }
}

/// Without the provider: `app@file`.
fn plain(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn strings(items: &[String]) -> Value {
    Value::Array(items.iter().map(|item| Value::from(item.as_str())).collect())
}

/// A header's changes, as Traefik writes them: an empty value removes.
fn changes(fields: &Node) -> toml::Table {
    let (mut set, mut remove) = (toml::Table::new(), Vec::new());
    for (name, value) in fields.entries() {
        match value.text().unwrap_or_default() {
            "" => remove.push(Value::from(name.as_str())),
            // Braces mean something here, and nothing there.
            text if text.contains(['{', '}']) => {}
            text => _ = set.insert(name.clone(), text.into()),
        }
    }
    let mut changes = toml::Table::new();
    if !set.is_empty() {
        changes = table_of([("set", set.into())]);
    }
    if !remove.is_empty() {
        changes.insert("remove".into(), Value::Array(remove));
    }
    changes
}
