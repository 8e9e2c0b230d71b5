//! Entrypoints, from the static configuration or from the routers that name them, with their certificates.

use std::collections::BTreeSet;

use toml::Value;

use super::{Node, Traefik, rule::Conditions, strings};
use crate::import::{
    Place, convert,
    draft::{Kind, table_of},
};

#[derive(Default)]
pub(super) struct Entrypoint {
    bind: Option<String>,
    /// Weir's name for it.
    pub(super) name: String,
    redirect: Option<(String, i64)>,
    /// Routers with TLS, and without.
    secure: bool,
    plain: bool,
    http3: bool,
    /// Routers of TCP or UDP use it.
    pub(super) carries: Option<&'static str>,
    trust: Vec<String>,
    /// Names to order certificates for.
    acme: BTreeSet<String>,
    place: Option<Place>,
}

impl Entrypoint {
    /// Whether routers of HTTP use it, or it answers by itself.
    pub(super) fn is_of_http(&self) -> bool {
        self.secure || self.plain || self.redirect.is_some()
    }
}

impl<'a> Traefik<'a> {
    pub(super) fn static_entrypoints(&mut self) {
        for (name, node) in self.all(&["entryPoints"]) {
            let address = node.text_of("address").unwrap_or_default();
            let (address, protocol) = address.split_once('/').unwrap_or((address, "tcp"));
            let mut entrypoint = Entrypoint {
                bind: convert::listen(address).map(|address| address.to_string()),
                name: crate::import::draft::plain_name(name),
                place: Some(node.place.clone()),
                carries: (protocol == "udp").then_some("udp"),
                secure: node.at(&["http", "tls"]).is_some(),
                http3: node.get("http3").is_some(),
                trust: node
                    .at(&["forwardedHeaders"])
                    .map(|headers| headers.texts_of("trustedIPs"))
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|text| convert::prefix(text))
                    .collect(),
                ..Entrypoint::default()
            };
            if let Some(to) = node.at(&["http", "redirections", "entryPoint"]) {
                let scheme = to.text_of("scheme").unwrap_or("https");
                let status = if to.text_of("permanent") == Some("false") { 302 } else { 308 };
                let port =
                    to.text_of("to").unwrap_or_default().strip_prefix(':').filter(|port| *port != "443");
                let target = port.map_or_else(|| scheme.to_owned(), |port| format!("{scheme}:{port}"));
                entrypoint.redirect = Some((target, status));
            }
            let own = entrypoint.name.clone();
            if let Some(proxies) = node.get("proxyProtocol") {
                let why =
                    "name the proxies in an allowlist, and that in `proxy_protocol = { from = [\"…\"] }`";
                self.draft.leave_guard(
                    std::slice::from_ref(&own),
                    &proxies.place,
                    &format!("proxyProtocol of entrypoint {name}"),
                    why,
                );
            }
            if let Some(all) = node.at(&["http", "middlewares"]) {
                let why = "name it in the entrypoint's `middleware`";
                self.draft.leave_guard(&[own], &all.place, &format!("middlewares of entrypoint {name}"), why);
            }
            self.entrypoints.insert(name.to_owned(), entrypoint);
        }
    }

    /// Weir's names for those that a router names. Empty: all.
    pub(super) fn entrypoints_of(&mut self, router: &'a Node) -> Vec<String> {
        let mut names = Vec::new();
        for name in router.texts_of("entryPoints") {
            let usual = match name {
                "web" | "http" => Some("0.0.0.0:80"),
                "websecure" | "https" => Some("0.0.0.0:443"),
                _ => None,
            };
            let entrypoint = self.entrypoints.entry(name.to_owned()).or_insert_with(|| Entrypoint {
                bind: usual.map(str::to_owned),
                name: crate::import::draft::plain_name(name),
                place: Some(router.place.clone()),
                ..Entrypoint::default()
            });
            if !names.contains(&entrypoint.name) {
                names.push(entrypoint.name.clone());
            }
        }
        names
    }

    /// Whether a router is of TLS, and for which names certificates are to be ordered.
    pub(super) fn tls_of(&mut self, router: &Node, entrypoints: &[String], routes: &[Conditions]) {
        let tls = router.get("tls").filter(|tls| tls.text() != Some("false"));
        let ordered = tls.is_some_and(|tls| tls.text_of("certResolver").is_some());
        for entrypoint in self.entrypoints.values_mut().filter(|known| entrypoints.contains(&known.name)) {
            match tls {
                Some(_) => entrypoint.secure = true,
                None => entrypoint.plain = true,
            }
            if ordered {
                let hosts = routes.iter().filter_map(|route| route.get("host")?.as_array()).flatten();
                entrypoint.acme.extend(
                    hosts.filter_map(Value::as_str).filter(|host| !host.starts_with('*')).map(str::to_owned),
                );
            }
        }
    }

    pub(super) fn write_entrypoints(&mut self) {
        let certificates = self.certificates();
        self.authority();
        for (own, entrypoint) in std::mem::take(&mut self.entrypoints) {
            let is_of_http = entrypoint.is_of_http();
            let Some(place) = entrypoint.place else { continue };
            let section = self.draft.add(Kind::Entrypoint, &entrypoint.name, &place);
            let name = self.draft.sections[section].name.clone();
            match entrypoint.bind {
                Some(bind) => self.draft.push(section, "bind", bind),
                None => {
                    let why = format!(
                        "where entrypoint `{own}` listens is in Traefik's static configuration: import that file too"
                    );
                    self.draft.hold_back(&name, &why);
                }
            }
            if let Some(protocol) = entrypoint.carries.filter(|_| !is_of_http) {
                self.draft.set(section, "protocol", protocol);
                continue;
            }
            if !entrypoint.trust.is_empty() {
                let list = self.draft.add(Kind::Allowlist, &format!("{name}-proxies"), &place);
                self.draft.set(list, "prefixes", strings(&entrypoint.trust));
                let trust = Value::Array(vec![self.draft.sections[list].name.as_str().into()]);
                self.draft.set(
                    section,
                    "client_ip",
                    table_of([("header", "X-Forwarded-For".into()), ("trust", trust)]),
                );
            }
            if let Some((target, status)) = entrypoint.redirect {
                self.draft.set(section, "redirect", target);
                self.draft.set(section, "redirect_status", status);
                continue;
            }
            if !entrypoint.secure {
                continue;
            }
            if entrypoint.plain {
                let why = "routers with and without TLS share it: an entrypoint is one or the other here";
                self.draft.hold_back(&name, why);
            }
            let mut tls = toml::Table::new();
            if !certificates.is_empty() {
                tls.insert("certificates".into(), strings(&certificates));
            }
            if !entrypoint.acme.is_empty() {
                tls.insert("acme".into(), strings(&entrypoint.acme.into_iter().collect::<Vec<_>>()));
            }
            if entrypoint.http3 {
                self.draft.set(section, "http3", true);
            }
            self.draft.set(section, "tls", tls);
        }
    }

    fn certificates(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let documents: &'a [Node] = self.documents;
        let lists = documents.iter().filter_map(|document| document.at(&["tls", "certificates"]));
        for node in lists.flat_map(Node::items) {
            let (chain, key) =
                (node.text_of("certFile").unwrap_or_default(), node.text_of("keyFile").unwrap_or_default());
            match convert::pair(chain, key) {
                Some(file) if !found.contains(&file) => found.push(file),
                Some(_) => {}
                None => {
                    let why = format!(
                        "a key stands beside its certificate here, or in the same file: put {key} beside it as NAME.key"
                    );
                    self.draft.leave_guard(&[], &node.place, &format!("certFile: {chain}"), &why);
                }
            }
        }
        found
    }

    fn authority(&mut self) {
        for (name, node) in self.all(&["certificatesResolvers"]) {
            let Some(acme) = node.get("acme") else {
                self.draft.leave(
                    &node.place,
                    &format!("certificatesResolvers.{name}"),
                    "only ACME is known here",
                );
                continue;
            };
            if self.draft.sections.iter().any(|section| section.kind == Kind::Acme) {
                self.draft.leave(
                    &node.place,
                    &format!("certificatesResolvers.{name}"),
                    "there is one authority here",
                );
                continue;
            }
            let section = self.draft.add(Kind::Acme, "acme", &acme.place);
            if let Some(mail) = acme.text_of("email") {
                self.draft.push(section, "contact", mail);
            }
            if let Some(directory) = acme.text_of("caServer") {
                self.draft.set(section, "directory", directory);
            }
            if acme.get("tlsChallenge").is_some() {
                self.draft.set(section, "challenge", "tls-alpn-01");
            } else if let Some(dns) = acme.get("dnsChallenge") {
                self.draft.leave(&dns.place, "dnsChallenge", "names are proved over HTTP or TLS here");
            }
            self.draft.note(section, "read the authority's terms, and add `agree_to_terms = true`");
        }
    }
}
