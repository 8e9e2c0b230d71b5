//! `frontend`, and what `listen` says of visitors: entrypoints and routes.

use std::net::SocketAddr;

use toml::Value;

use super::{
    Haproxy, Section,
    condition::{About, Acls, Test, alternatives},
    syntax::Line,
};
use crate::import::{
    convert,
    draft::{Kind, table_of},
};

/// Of the first rule; the last one has 1.
const MOST_RULES: usize = 1000;

/// A rule that sends requests somewhere.
struct Rule<'a> {
    line: &'a Line,
    /// One route for each.
    alternatives: Vec<Vec<Test>>,
    to: To<'a>,
}

enum To<'a> {
    Backend(&'a str),
    Redirect(toml::Table),
}

impl<'a> Haproxy<'a> {
    pub(super) fn frontend(&mut self, section: &'a Section, defaults: Option<&'a Section>) {
        if super::is_tcp(section, defaults) {
            self.carry(section, defaults);
            return;
        }
        let entrypoints = self.binds(section);
        let mut acls = Acls::new();
        for line in section.lines.iter().filter(|line| line.word(0) == "acl") {
            acls.entry(line.word(1)).or_default().push(line);
        }
        let plain: Vec<String> =
            entrypoints.iter().filter(|(_, tls)| !tls).map(|(name, _)| name.clone()).collect();
        let names: Vec<String> = entrypoints.into_iter().map(|(name, _)| name).collect();
        let chain = self.rules_for_all(section, &acls, &names);
        let (mut rules, mut default) = (Vec::new(), None);
        for line in &section.lines {
            match line.word(0) {
                "use_backend" => self.use_backend(line, &acls, &names, &mut rules),
                "default_backend" => default = Some((line.word(1), line)),
                "redirect" => self.redirect(line, 1, &acls, &plain, &names, &mut rules),
                "http-request" if line.word(1) == "redirect" => {
                    self.redirect(line, 2, &acls, &plain, &names, &mut rules);
                }
                _ => {}
            }
        }
        if section.kind == "listen" && section.lines.iter().any(|line| line.word(0) == "server") {
            default = section
                .lines
                .iter()
                .find(|line| line.word(0) == "server")
                .map(|line| (section.name.as_str(), line));
        }
        if default.is_none() {
            let inherited = defaults
                .and_then(|defaults| defaults.lines.iter().find(|line| line.word(0) == "default_backend"));
            default = inherited.map(|line| (line.word(1), line));
        }
        let ordered = rules.iter().map(|rule| rule.alternatives.len()).sum::<usize>() > 1;
        let mut priority = MOST_RULES;
        for rule in rules {
            self.rule(section, &rule, &names, &chain, ordered.then_some(priority));
            priority = priority.saturating_sub(1).max(1);
        }
        if let Some((backend, line)) = default {
            let everything = Rule { line, alternatives: vec![Vec::new()], to: To::Backend(backend) };
            self.rule(section, &everything, &names, &chain, None);
        }
    }

    /// The entrypoints of a frontend, and whether each is of TLS.
    fn binds(&mut self, section: &'a Section) -> Vec<(String, bool)> {
        let mut plain: (Vec<SocketAddr>, Option<&Line>) = (Vec::new(), None);
        let mut secure: (Vec<SocketAddr>, Option<&Line>, Vec<Value>, Option<String>) =
            (Vec::new(), None, Vec::new(), None);
        let mut held = Vec::new();
        for line in section.lines.iter().filter(|line| line.word(0) == "bind") {
            for address in self.addresses(line) {
                if line.has("ssl") {
                    secure.0.push(address);
                    secure.1.get_or_insert(line);
                } else {
                    plain.0.push(address);
                    plain.1.get_or_insert(line);
                }
            }
            if let Some(certificate) = line.after("crt").filter(|_| line.has("ssl")) {
                let certificate = Value::from(certificate);
                if !secure.2.contains(&certificate) {
                    secure.2.push(certificate);
                }
            }
            if let Some(ca) = line.after("ca-file").filter(|_| line.has("ssl")) {
                match line.after("verify") {
                    Some("required") => secure.3 = Some(ca.to_owned()),
                    Some("optional") => held.push((line, "write it as the entrypoint's `tls.client_ca`")),
                    _ => {}
                }
            }
            if line.has("accept-proxy") {
                held.push((
                    line,
                    "name the proxies in an allowlist, and that in `proxy_protocol = { from = [\"…\"] }`",
                ));
            }
        }
        let mut names = Vec::new();
        let both = plain.1.is_some() && secure.1.is_some();
        if let Some(line) = plain.1 {
            let name = if both { format!("{}-http", section.name) } else { section.name.clone() };
            names.push((self.entrypoint(&name, &plain.0, line, None), false));
        }
        if let Some(line) = secure.1 {
            let mut tls = table_of([("certificates", Value::Array(secure.2))]);
            if let Some(ca) = secure.3 {
                tls.insert("client_ca".into(), ca.into());
            }
            names.push((self.entrypoint(&section.name, &secure.0, line, Some(tls)), true));
        }
        let all: Vec<String> = names.iter().map(|(name, _)| name.clone()).collect();
        for (line, why) in held {
            self.draft.leave_guard(&all, &line.place, &line.to_string(), why);
        }
        names
    }

    /// Where a `bind` listens.
    pub(super) fn addresses(&mut self, line: &Line) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for text in line.word(1).split(',') {
            let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
            let text = if text.starts_with(":::") { format!("[::]{}", &text[2..]) } else { text.to_owned() };
            match convert::listen(&text) {
                Some(address) => addresses.push(address),
                None => {
                    let why = "only addresses and ports can be listened on";
                    self.draft.leave(&line.place, &line.to_string(), why);
                }
            }
        }
        addresses
    }

    pub(super) fn entrypoint(
        &mut self,
        name: &str,
        bind: &[SocketAddr],
        line: &Line,
        tls: Option<toml::Table>,
    ) -> String {
        let entrypoint = self.draft.add(Kind::Entrypoint, name, &line.place);
        for address in bind {
            self.draft.push(entrypoint, "bind", address.to_string());
        }
        if let Some(tls) = tls {
            self.draft.set(entrypoint, "tls", tls);
        }
        self.draft.sections[entrypoint].name.clone()
    }

    /// What is done to every request, as a chain of middleware.
    fn rules_for_all(&mut self, section: &'a Section, acls: &Acls<'_>, names: &[String]) -> Vec<Value> {
        let (mut request, mut response) = (toml::Table::new(), toml::Table::new());
        let mut chain: Vec<Value> = Vec::new();
        for line in &section.lines {
            let (before, condition) = line.condition();
            let words: Vec<&str> = before.iter().map(String::as_str).collect();
            match words.as_slice() {
                // So that there is something to look at: it is waited for anyway.
                ["tcp-request", "inspect-delay", ..] => {}
                ["http-request", "deny" | "reject" | "silent-drop" | "tarpit", ..]
                | ["block", ..]
                | ["tcp-request", _, "reject", ..] => match by_client(condition, acls) {
                    Some(clients) => chain.push(table_of([("clients", clients.into())]).into()),
                    None => {
                        let why = "only who the client is can be asked here: conditions belong to routes";
                        self.draft.leave_guard(names, &line.place, &line.to_string(), why);
                    }
                },
                ["http-request", "auth" | "allow" | "return" | "track-sc0" | "use-service", ..]
                | ["tcp-request", ..]
                | ["filter", ..] => {
                    let why = "`basic_auth`, `rate_limit` and pages are there for it, and written otherwise";
                    self.draft.leave_guard(names, &line.place, &line.to_string(), why);
                }
                ["http-request" | "http-response", "redirect", ..] => {}
                [
                    side @ ("http-request" | "http-response"),
                    how @ ("set-header" | "add-header" | "del-header"),
                    name,
                    value @ ..,
                ] if condition.is_empty() => {
                    let changes = if *side == "http-request" { &mut request } else { &mut response };
                    self.header(line, changes, how, name, value.first().copied().unwrap_or_default());
                }
                [
                    "option",
                    "forwardfor" | "http-server-close" | "httplog" | "dontlognull" | "http-keep-alive"
                    | "httpclose",
                    ..,
                ] => {}
                ["compression", "algo", ..] => {
                    chain.push(table_of([("compress", toml::Table::new().into())]).into());
                }
                [
                    "acl" | "bind" | "use_backend" | "default_backend" | "redirect" | "mode" | "log"
                    | "maxconn" | "timeout" | "compression" | "description" | "log-format" | "http-reuse",
                    ..,
                ] => {}
                [
                    "server" | "balance" | "cookie" | "default-server" | "http-check" | "option" | "retries"
                    | "errorfile",
                    ..,
                ] => {}
                _ => self.draft.leave(&line.place, &line.to_string(), "it has no counterpart here"),
            }
        }
        let mut headers = toml::Table::new();
        for (side, changes) in [("request", request), ("response", response)] {
            if !changes.is_empty() {
                headers.insert(side.into(), changes.into());
            }
        }
        if !headers.is_empty() {
            chain.push(table_of([("headers", headers.into())]).into());
        }
        chain
    }

    fn header(&mut self, line: &Line, changes: &mut toml::Table, how: &str, name: &str, value: &str) {
        if name.to_ascii_lowercase().starts_with("x-forwarded-") {
            return;
        }
        let key = match how {
            "set-header" => "set",
            "add-header" => "add",
            _ => {
                if let Value::Array(list) =
                    changes.entry("remove").or_insert_with(|| Value::Array(Vec::new()))
                {
                    list.push(name.into());
                }
                return;
            }
        };
        const KNOWN: [(&str, &str); 4] = [
            ("%[src]", "{client_ip}"),
            ("%ci", "{client_ip}"),
            ("%[req.hdr(host)]", "{host}"),
            ("%[hdr(host)]", "{host}"),
        ];
        let filled = KNOWN.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to));
        if value.contains(['{', '}']) || filled.contains('%') {
            self.draft.leave(&line.place, &line.to_string(), "Weir has no such variable");
            return;
        }
        if let Value::Table(table) = changes.entry(key).or_insert_with(|| toml::Table::new().into()) {
            table.insert(name.to_owned(), filled.into());
        }
    }

    fn use_backend(&mut self, line: &'a Line, acls: &Acls<'_>, names: &[String], rules: &mut Vec<Rule<'a>>) {
        let (_, condition) = line.condition();
        let asked = if condition.is_empty() { Some(vec![Vec::new()]) } else { alternatives(condition, acls) };
        match asked {
            Some(alternatives) if !line.word(1).starts_with('%') => {
                rules.push(Rule { line, alternatives, to: To::Backend(line.word(1)) });
            }
            _ => {
                let why = "its condition asks what routes don't";
                self.draft.leave_guard(names, &line.place, &line.to_string(), why);
            }
        }
    }

    fn redirect(
        &mut self,
        line: &'a Line,
        at: usize,
        acls: &Acls<'_>,
        plain: &[String],
        names: &[String],
        rules: &mut Vec<Rule<'a>>,
    ) {
        let (_, condition) = line.condition();
        let status = line.after("code").and_then(|code| code.parse::<i64>().ok()).unwrap_or(302);
        let (kind, to) = (line.word(at), line.word(at + 1));
        // `redirect scheme https unless { ssl_fc }`, in its many forms: for all that came without TLS.
        let about_tls = condition.iter().any(|word| word == "ssl_fc")
            || condition.iter().any(|word| {
                let lines = acls.get(word.trim_start_matches('!'));
                lines.is_some_and(|lines| lines.iter().any(|line| line.word(2) == "ssl_fc"))
            });
        if kind == "scheme" && to == "https" && (condition.is_empty() || (about_tls && condition.len() <= 6))
        {
            for name in plain {
                if let Some(entrypoint) = self.draft.find(Kind::Entrypoint, name) {
                    self.draft.set(entrypoint, "redirect", "https");
                    self.draft.set(entrypoint, "redirect_status", status);
                }
            }
            return;
        }
        let redirect = match kind {
            "scheme" => Some(table_of([("scheme", to.into()), ("status", status.into())])),
            "location" | "prefix" => location(kind, to, status),
            _ => None,
        };
        let asked = if condition.is_empty() { Some(vec![Vec::new()]) } else { alternatives(condition, acls) };
        match (redirect, asked) {
            (Some(redirect), Some(alternatives)) => {
                rules.push(Rule { line, alternatives, to: To::Redirect(redirect) });
            }
            _ => self.draft.leave_guard(names, &line.place, &line.to_string(), "it isn't understood"),
        }
    }

    fn rule(
        &mut self,
        section: &Section,
        rule: &Rule<'a>,
        names: &[String],
        chain: &[Value],
        priority: Option<usize>,
    ) {
        let target = match &rule.to {
            To::Backend(backend) => match self.service(backend) {
                Some(service) => Ok(service),
                None => {
                    let why = format!("there is no backend `{backend}` that serves HTTP");
                    self.draft.leave_guard(names, &rule.line.place, &rule.line.to_string(), &why);
                    return;
                }
            },
            To::Redirect(redirect) => Err(redirect),
        };
        for tests in &rule.alternatives {
            let name = match &rule.to {
                To::Backend(backend) => format!("{}-{backend}", section.name),
                To::Redirect(_) => format!("{}-redirect", section.name),
            };
            let route = self.draft.add(Kind::Route, &name, &rule.line.place);
            let name = self.draft.sections[route].name.clone();
            self.draft.set(route, "name", name);
            if !names.is_empty() {
                self.draft.set(
                    route,
                    "entrypoint",
                    Value::Array(names.iter().map(|name| Value::from(name.as_str())).collect()),
                );
            }
            if let Some(priority) = priority {
                self.draft.set(route, "priority", i64::try_from(priority).unwrap_or(1));
            }
            if !self.tests(route, tests) {
                self.draft.sections.pop();
                let why = "its condition asks what one route can't";
                self.draft.leave_guard(names, &rule.line.place, &rule.line.to_string(), why);
                continue;
            }
            let mut chain = chain.to_vec();
            match &target {
                Ok(service) => self.draft.set(route, "service", service.as_str()),
                Err(redirect) => chain.push(table_of([("redirect", (*redirect).clone().into())]).into()),
            }
            if !chain.is_empty() {
                self.draft.set(route, "middleware", Value::Array(chain));
            }
        }
    }

    /// Puts tests into a route. False: it can't ask that.
    fn tests(&mut self, route: usize, tests: &[Test]) -> bool {
        let mut not = toml::Table::new();
        for test in tests {
            let key = match &test.about {
                About::Host => "host",
                About::Path => "path",
                About::Method => "method",
                About::Client => "client",
                About::Header(_) => "header",
                About::Tls | About::Sni | About::Hello => return false,
            };
            // A route has one of each, and one path; a header has one value.
            if not.contains_key(key) && test.negated
                || (self.draft.get(route, key).is_some() && !test.negated)
            {
                return false;
            }
            let single = matches!(test.about, About::Path | About::Header(_));
            let value = match (test.values.as_slice(), single && !test.negated) {
                ([one], true) => one.clone(),
                (_, true) => return false,
                ([one], false) if matches!(test.about, About::Host | About::Path) => one.clone(),
                (several, false) => Value::Array(several.to_vec()),
            };
            let value = match &test.about {
                About::Header(name) => match (value, test.values.as_slice()) {
                    (_, [one]) => table_of([(name.as_str(), one.clone())]).into(),
                    _ => return false,
                },
                _ => value,
            };
            if test.negated {
                not.insert(key.into(), value);
            } else {
                self.draft.set(route, key, value);
            }
        }
        if !not.is_empty() {
            self.draft.set(route, "not", not);
        }
        true
    }
}

/// `deny if` a condition about the client alone.
pub(super) fn by_client(condition: &[String], acls: &Acls<'_>) -> Option<toml::Table> {
    let asked = alternatives(condition, acls)?;
    let (mut deny, mut allow) = (Vec::new(), Vec::new());
    for alternative in &asked {
        match alternative.as_slice() {
            [Test { about: About::Client, values, negated: false }] => deny.extend(values.iter().cloned()),
            // Who is in none of them is kept out, so who is in any of them comes in.
            tests
                if asked.len() == 1
                    && !tests.is_empty()
                    && tests.iter().all(|test| test.about == About::Client && test.negated) =>
            {
                allow.extend(tests.iter().flat_map(|test| test.values.iter().cloned()));
            }
            _ => return None,
        }
    }
    let mut clients = toml::Table::new();
    for (key, list) in [("allow", allow), ("deny", deny)] {
        if !list.is_empty() {
            clients.insert(key.into(), Value::Array(list));
        }
    }
    (!clients.is_empty()).then_some(clients)
}

/// `redirect prefix URL` keeps the path, `redirect location URL` doesn't.
fn location(kind: &str, to: &str, status: i64) -> Option<toml::Table> {
    let mut table = table_of([("status", status.into())]);
    let path = match to.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            table.insert("scheme".into(), scheme.into());
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            table.insert("host".into(), host.into());
            path
        }
        Some(_) => return None,
        None => to,
    };
    if to.contains('%') {
        return None;
    }
    let fixed = if path.is_empty() { "/" } else { path };
    let path = match (kind, path) {
        ("prefix", "" | "/") => None,
        ("prefix", prefix) => Some(table_of([
            ("regex", "(.*)".into()),
            ("to", format!("{}$1", prefix.trim_end_matches('/').replace('$', "$$")).into()),
        ])),
        _ => Some(table_of([("regex", ".*".into()), ("to", fixed.replace('$', "$$").into())])),
    };
    if let Some(path) = path {
        table.insert("path".into(), path.into());
    }
    Some(table)
}
