//! Ingress → routes. What it says of hosts with TLS is taken at its word: they are served over TLS alone.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{
    backends::{Backends, Port, Way, document},
    cluster::{Key, Kind},
    gateway::covers,
    objects::{IngressBackend, IngressPath, IngressSpec, Object},
    words::{self, OfRoute},
};
use crate::{
    config::model::{Kubernetes, PortOf},
    providers::composed::{self, Composed, Section},
};

/// How classes were named before `ingressClassName`.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// A path without these is none that somebody meant as a regular expression.
const OF_EXPRESSIONS: &[char] = &['(', ')', '[', ']', '{', '}', '|', '^', '$', '\\', '*', '+', '?'];

/// The routes of one Ingress, as they are made.
struct Making<'a, 'b> {
    key: &'a Key,
    terms: &'a Kubernetes,
    said: &'a OfRoute,
    backends: &'a mut Backends<'b>,
    composed: &'a mut Composed,
    /// Host and path: of two the first counts.
    taken: BTreeSet<(Option<String>, String)>,
    encrypted: Encrypted,
}

/// Which hosts TLS is for.
enum Encrypted {
    All,
    These(BTreeSet<String>),
}

/// Whether it is for this provider.
pub fn is_ours(ingress: &Object<IngressSpec>, class: &str) -> bool {
    let old = ingress.metadata.annotations.get(OLD_CLASS);
    ingress.spec.ingress_class_name.as_ref().or(old).is_some_and(|named| named == class)
}

pub fn translate(
    key: &Key,
    ingress: &Object<IngressSpec>,
    terms: &Kubernetes,
    backends: &mut Backends<'_>,
    composed: &mut Composed,
) {
    let said = match words::of_route(&ingress.metadata.annotations, true) {
        Ok(said) => said,
        Err(why) => {
            let why = format!("is left out: {why}, and may be what guards it");
            return composed.fault(&document(Kind::Ingress, key), why);
        }
    };
    let spec = &ingress.spec;
    let encrypted = match spec.tls.iter().any(|tls| tls.hosts.is_empty()) {
        true => Encrypted::All,
        false => Encrypted::These(spec.tls.iter().flat_map(|tls| &tls.hosts).cloned().collect()),
    };
    let taken = BTreeSet::new();
    let mut making = Making { key, terms, said: &said, backends, composed, taken, encrypted };
    for (nth, rule) in spec.rules.iter().enumerate() {
        let host = rule.host.as_deref().filter(|host| !host.is_empty());
        let paths = rule.http.as_ref().map(|http| http.paths.as_slice()).unwrap_or_default();
        for (mth, path) in paths.iter().enumerate() {
            let place = format!("rules[{nth}].http.paths[{mth}]");
            making.path(&place, &format!("{nth}-{mth}"), host, path);
        }
        if paths.is_empty() && spec.default_backend.is_none() {
            making.fault(&format!("rules[{nth}]"), "it has no path, and there is no `defaultBackend`");
        }
    }
    if let Some(backend) = &spec.default_backend {
        // What no rule of a host takes falls through to the route for any.
        making.lead("defaultBackend", "default", None, &Value::from("/"), backend);
    }
}

impl Making<'_, '_> {
    fn fault(&mut self, place: &str, why: &str) {
        self.composed.fault(&document(Kind::Ingress, self.key), format!("{place}: {why}"));
    }

    fn path(&mut self, place: &str, nth: &str, host: Option<&str>, path: &IngressPath) {
        let text = path.path.as_deref().filter(|text| !text.is_empty()).unwrap_or("/");
        let pattern = match &*path.path_type {
            "Exact" => Value::from(Table::from_iter([("exact".to_owned(), text.into())])),
            "Prefix" => text.into(),
            "ImplementationSpecific" if !text.contains(OF_EXPRESSIONS) => text.into(),
            "ImplementationSpecific" => {
                let why = format!(
                    "{text:?} looks like a regular expression, and what is ImplementationSpecific is a prefix here"
                );
                return self.fault(place, &why);
            }
            other => return self.fault(place, &format!("the path's type {other:?} is not known")),
        };
        self.lead(place, nth, host, &pattern, &path.backend);
    }

    /// Requests for a host and path go to a backend.
    fn lead(&mut self, place: &str, nth: &str, host: Option<&str>, path: &Value, backend: &IngressBackend) {
        if !self.taken.insert((host.map(str::to_owned), path.to_string())) {
            if place != "defaultBackend" {
                self.fault(place, "an earlier path of the same host is the same");
            }
            return;
        }
        // An Ingress knows two ports. Entrypoints for other ones are what listeners of Gateways mean.
        let all = |ports: &[PortOf]| -> Vec<Value> {
            let usual = ports.iter().filter(|port| port.port == ports[0].port);
            usual.map(|port| Value::from(&*port.entrypoint)).collect()
        };
        let (http, https) = (all(&self.terms.http), all(&self.terms.https));
        let encrypted = match (&self.encrypted, host) {
            (Encrypted::All, _) => true,
            (Encrypted::These(hosts), Some(host)) => hosts.iter().any(|name| covers(name, host)),
            (Encrypted::These(_), None) => false,
        };
        if encrypted && https.is_empty() {
            return self.fault(place, "its host is one with TLS, and the provider has no `https`");
        }
        let redirected = encrypted && self.said.https_redirect;
        let entrypoints = if redirected { https } else { [http.clone(), https].concat() };
        if entrypoints.is_empty() {
            return self.fault(place, "the provider has neither `http` nor `https`");
        }
        let service = self.service(place, backend);
        let name = self.backends.name(self.key, &[nth]);
        let place_of = |section: Section| {
            let section = match host {
                // One label in the place of the star, unlike elsewhere in Weir.
                Some(host) => match host.strip_prefix("*.") {
                    Some(rest) => {
                        let regex = format!("[^.]+\\.{}", regex::escape(&rest.to_ascii_lowercase()));
                        section.with("host", Table::from_iter([("regex".to_owned(), regex.into())]))
                    }
                    None => section.with("host", host),
                },
                None => section,
            };
            section.with("path", path.clone()).made_of(place)
        };
        let mut route = place_of(Section::route(name.as_str(), &service)).with("entrypoint", entrypoints);
        if !self.said.middleware.is_empty() {
            route.set("middleware", self.said.middleware.clone());
        }
        let document = document(Kind::Ingress, self.key);
        self.composed.add(&document, route);
        if redirected && !http.is_empty() {
            let name = self.backends.name(self.key, &[nth, "https"]);
            let redirect = place_of(Section::new(composed::Kind::Route, name))
                .with("entrypoint", http)
                .with("middleware", vec![to_https(self.terms, host)]);
            self.composed.add(&document, redirect);
        }
    }

    /// What can't be led anywhere is led to nobody: its visitors get a page, and no other route takes what is not its own.
    fn service(&mut self, place: &str, backend: &IngressBackend) -> String {
        let found = match (&backend.service, &backend.resource) {
            (Some(service), _) => {
                let port = match (&service.port.number, &service.port.name) {
                    (Some(number), _) => Port::Number(*number),
                    (None, name) => Port::Name(name.clone().unwrap_or_default()),
                };
                self.backends.service(&Key::new(&self.key.namespace, &service.name), &port, Way::Http)
            }
            (None, Some(_)) => Err("its backend is a resource, and only services can be served".to_owned()),
            (None, None) => Err("it has no backend".to_owned()),
        };
        found.unwrap_or_else(|why| {
            self.fault(place, &format!("{why}; its requests get the page `maintenance`"));
            self.backends.nobody()
        })
    }
}

fn to_https(terms: &Kubernetes, host: Option<&str>) -> Value {
    let mut redirect = Table::from_iter([("scheme".to_owned(), Value::from("https"))]);
    let port = terms.https.first().map_or(443, |port| port.port);
    if let Some(host) = host.filter(|host| port != 443 && !host.starts_with('*')) {
        redirect.insert("host".to_owned(), format!("{host}:{port}").into());
    }
    Table::from_iter([("redirect".to_owned(), Value::from(redirect))]).into()
}
