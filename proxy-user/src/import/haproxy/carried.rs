//! `frontend` and `listen` in `mode tcp`: entrypoints of TCP, with a passthrough route for each backend, by the names in TLS's
//! hello where it inspects them.

use std::collections::BTreeMap;

use toml::Value;

use super::{
    Haproxy, Section,
    condition::{About, Acls, Test, alternatives},
    frontend::by_client,
    syntax::Line,
};
use crate::import::draft::Kind;

/// A backend, with the names that it gets. None: all others.
struct Way<'a> {
    line: &'a Line,
    backend: &'a str,
    names: Vec<Value>,
}

impl<'a> Haproxy<'a> {
    pub(super) fn carry(&mut self, section: &'a Section, defaults: Option<&'a Section>) {
        let Some(entrypoint) = self.open(section) else { return };
        let mut acls = Acls::new();
        for line in section.lines.iter().filter(|line| line.word(0) == "acl") {
            acls.entry(line.word(1)).or_default().push(line);
        }
        self.guards(section, &acls, &entrypoint);
        let mut ways: Vec<Way<'a>> = Vec::new();
        let mut default: Option<(&str, &Line)> = None;
        for line in &section.lines {
            match line.word(0) {
                "use_backend" => match names(line, &acls) {
                    Some(names) if names.is_empty() => default = default.or(Some((line.word(1), line))),
                    Some(names) => ways.push(Way { line, backend: line.word(1), names }),
                    None => {
                        let why = "a connection that isn't decrypted can be asked for the name in its hello, and for nothing else";
                        let only = std::slice::from_ref(&entrypoint);
                        self.draft.leave_guard(only, &line.place, &line.to_string(), why);
                    }
                },
                "default_backend" => default = default.or(Some((line.word(1), line))),
                "server" if section.kind == "listen" => {
                    default = default.or(Some((section.name.as_str(), line)));
                }
                _ => {}
            }
        }
        let inherited = defaults.and_then(|defaults| {
            let line = defaults.lines.iter().find(|line| line.word(0) == "default_backend")?;
            Some((line.word(1), line))
        });
        if let Some((backend, line)) = default.or(inherited) {
            ways.push(Way { line, backend, names: Vec::new() });
        }
        for way in first_wins(ways) {
            self.way(section, &entrypoint, &way);
        }
    }

    /// The entrypoint, if it listens anywhere.
    fn open(&mut self, section: &'a Section) -> Option<String> {
        let (mut addresses, mut first, mut held) = (Vec::new(), None, Vec::new());
        for line in section.lines.iter().filter(|line| line.word(0) == "bind") {
            if line.has("ssl") {
                let why = "TLS that ends here is of HTTP: what is carried is not decrypted";
                self.draft.leave(&line.place, &line.to_string(), why);
                continue;
            }
            addresses.extend(self.addresses(line));
            first.get_or_insert(line);
            if line.has("accept-proxy") {
                held.push(line);
            }
        }
        let line = first?;
        if addresses.is_empty() {
            return None;
        }
        let entrypoint = self.entrypoint(&section.name, &addresses, line, None);
        let number = self.draft.find(Kind::Entrypoint, &entrypoint)?;
        self.draft.set(number, "protocol", "tcp");
        for line in held {
            let why = "name the proxies in an allowlist, and that in `proxy_protocol = { from = [\"…\"] }`";
            let only = std::slice::from_ref(&entrypoint);
            self.draft.leave_guard(only, &line.place, &line.to_string(), why);
        }
        Some(entrypoint)
    }

    /// Who may come in; what is only about how HAProxy finds the name is done here anyway.
    fn guards(&mut self, section: &'a Section, acls: &Acls<'_>, entrypoint: &str) {
        let only = [entrypoint.to_owned()];
        let carries = |backend: &str| {
            self.backends.get(backend).is_some_and(|(section, defaults)| super::is_tcp(section, *defaults))
        };
        let takes_all = |line: &Line| match line.word(0) {
            "use_backend" => line.condition().1.is_empty() && carries(line.word(1)),
            "default_backend" => carries(line.word(1)),
            first => first == "server" && section.kind == "listen",
        };
        let by_name_alone = !section.lines.iter().any(takes_all);
        for line in &section.lines {
            let (before, condition) = line.condition();
            let words: Vec<&str> = before.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["tcp-request", "inspect-delay", ..] => {}
                // `accept if` there is a hello: so that the name can be asked for.
                ["tcp-request", "content", "accept"] if is_about_hellos(condition, acls) => {}
                // `reject unless` there is one: nobody takes such a client where every route asks for a name.
                ["tcp-request", "content", "reject"] if by_name_alone && is_without_hello(condition) => {}
                ["tcp-request", "connection" | "content" | "session", "reject"] => {
                    let clients = by_client(condition, acls);
                    let allow = clients.as_ref().and_then(|clients| clients.get("allow"));
                    match (allow, clients.as_ref().is_some_and(|clients| clients.contains_key("deny"))) {
                        (Some(allow), false) => self.let_in(line, entrypoint, allow),
                        _ => {
                            let why = "write who may come in as an allowlist, and its name in the entrypoint's `allow`";
                            self.draft.leave_guard(&only, &line.place, &line.to_string(), why);
                        }
                    }
                }
                ["tcp-request", ..] | ["filter", ..] => {
                    let why = "it has no counterpart for what is carried untouched";
                    self.draft.leave_guard(&only, &line.place, &line.to_string(), why);
                }
                ["stick" | "stick-table" | "email-alert" | "tcp-response" | "rate-limit", ..] => {
                    self.draft.leave(&line.place, &line.to_string(), "it has no counterpart here");
                }
                _ => {}
            }
        }
    }

    fn let_in(&mut self, line: &Line, entrypoint: &str, allow: &Value) {
        let list = self.draft.add(Kind::Allowlist, &format!("{entrypoint}-clients"), &line.place);
        self.draft.set(list, "prefixes", allow.clone());
        let name = self.draft.sections[list].name.clone();
        if let Some(number) = self.draft.find(Kind::Entrypoint, entrypoint) {
            // Several must all let somebody in; lists of an entrypoint are asked for any.
            if self.draft.get(number, "allow").is_some() {
                let why = "who may come in is asked twice: make one list of both";
                self.draft.leave_guard(&[entrypoint.to_owned()], &line.place, &line.to_string(), why);
            }
            self.draft.push(number, "allow", name);
        }
    }

    fn way(&mut self, section: &Section, entrypoint: &str, way: &Way<'a>) {
        let Some(service) = self.carrying_service(way.backend) else {
            let why = format!(
                "there is no backend `{}` in `mode tcp` that connections could be carried to",
                way.backend
            );
            // Nobody is let in where nothing is carried.
            self.draft.leave(&way.line.place, &way.line.to_string(), &why);
            return;
        };
        let name = format!("{}-{}", section.name, way.backend);
        let route = self.draft.add(Kind::Route, &name, &way.line.place);
        let name = self.draft.sections[route].name.clone();
        self.draft.set(route, "name", name);
        self.draft.set(route, "entrypoint", entrypoint);
        if !way.names.is_empty() {
            self.draft.set(route, "sni", Value::Array(way.names.clone()));
        }
        self.draft.set(route, "passthrough", service);
    }
}

/// The names that a `use_backend` asks for; none: it asks for nothing. `None`: it asks for something else.
fn names(line: &Line, acls: &Acls<'_>) -> Option<Vec<Value>> {
    let (_, condition) = line.condition();
    if line.word(1).starts_with('%') {
        return None;
    }
    if condition.is_empty() {
        return Some(Vec::new());
    }
    let mut names = Vec::new();
    for tests in alternatives(condition, acls)? {
        // That there is a hello goes without saying where its name is asked for.
        let mut rest = tests.iter().filter(|test| test.about != About::Hello || test.negated);
        match (rest.next(), rest.next()) {
            (Some(Test { about: About::Sni, values, negated: false }), None) => {
                names.extend(values.iter().cloned());
            }
            _ => return None,
        }
    }
    (!names.is_empty()).then_some(names)
}

/// `unless` there is a hello, as it is mostly written.
fn is_without_hello(condition: &[String]) -> bool {
    let condition = condition.join(" ").replace("req_ssl_hello_type", "req.ssl_hello_type");
    matches!(&*condition, "unless { req.ssl_hello_type 1 }" | "if !{ req.ssl_hello_type 1 }")
}

fn is_about_hellos(condition: &[String], acls: &Acls<'_>) -> bool {
    let about = |test: &Test| matches!(test.about, About::Hello | About::Sni);
    alternatives(condition, acls).is_some_and(|all| all.iter().flatten().all(about))
}

/// HAProxy asks in order; here every name is somebody's, and only once. One route for each backend.
fn first_wins(ways: Vec<Way<'_>>) -> Vec<Way<'_>> {
    let mut taken: Vec<Value> = Vec::new();
    let mut merged: Vec<Way<'_>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for mut way in ways {
        if way.names.is_empty() {
            merged.push(way);
            continue;
        }
        way.names.retain(|name| {
            let is_free = !taken.iter().any(|known| covers(known, name));
            if is_free {
                taken.push(name.clone());
            }
            is_free
        });
        match places.get(way.backend) {
            Some(at) => merged[*at].names.append(&mut way.names),
            None if way.names.is_empty() => {}
            None => {
                places.insert(way.backend, merged.len());
                merged.push(way);
            }
        }
    }
    merged
}

/// Whether whoever has `name` was somebody's already: `*.example.com` is all names below it.
fn covers(known: &Value, name: &Value) -> bool {
    let (Some(known), Some(name)) = (known.as_str(), name.as_str()) else { return false };
    known == name || known.strip_prefix('*').is_some_and(|below| name.ends_with(below))
}
