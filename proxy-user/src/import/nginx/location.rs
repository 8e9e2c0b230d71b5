//! A `location` block: a route, with what is done to its requests.

use toml::Value;

use super::{Directive, Nginx, Scope, guard, server::Visitors, with_variables};
use crate::import::{
    Place, convert,
    draft::{Kind, table_of},
};

/// Looked at here or in `upstream`.
pub(super) const KNOWN: &[&str] = &[
    "add_header",
    "alias",
    "client_max_body_size",
    "error_page",
    "expires",
    "gzip",
    "hash",
    "ip_hash",
    "least_conn",
    "proxy_connect_timeout",
    "proxy_hide_header",
    "proxy_pass",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_set_header",
    "proxy_ssl_name",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_verify",
    "return",
    "rewrite",
    "try_files",
];

/// Named locations may lead to each other.
const DEEPEST: usize = 4;

/// What the path must be.
#[derive(Debug, Clone)]
pub(super) struct Match {
    /// `None`: any.
    path: Option<Value>,
    /// What nginx cuts off where `proxy_pass` has a path.
    prefix: Option<String>,
}

impl Match {
    pub(super) fn everything() -> Self {
        Self { path: None, prefix: Some("/".into()) }
    }
}

impl<'a> Nginx<'a> {
    /// Whether it was for every path.
    pub(super) fn location(
        &mut self,
        location: &'a Directive,
        scope: &Scope<'a>,
        visitors: &Visitors,
        depth: usize,
    ) -> bool {
        let Some(block) = location.block.as_deref() else { return false };
        let arguments: Vec<&str> = location.arguments.iter().map(String::as_str).collect();
        let path = match arguments.as_slice() {
            ["=", path] => Match {
                path: Some(table_of([("exact", (*path).into())]).into()),
                prefix: Some((*path).into()),
            },
            ["~", pattern] => Match { path: Some(regex(pattern).into()), prefix: None },
            ["~*", pattern] => Match { path: Some(regex(&format!("(?i){pattern}")).into()), prefix: None },
            [name] if name.starts_with('@') => return false,
            ["^~", path] | [path] => match convert::path(path) {
                Some(plain) => {
                    Match { path: (plain != "/").then(|| plain.into()), prefix: Some((*path).into()) }
                }
                None => {
                    let why = "a path begins with `/` and has whole segments";
                    self.draft.leave_guard(
                        &visitors.entrypoints,
                        &location.place,
                        &location.to_string(),
                        why,
                    );
                    return false;
                }
            },
            _ => {
                self.draft.leave_guard(
                    &visitors.entrypoints,
                    &location.place,
                    &location.to_string(),
                    "it isn't understood",
                );
                return false;
            }
        };
        let inner = scope.within(block);
        for directive in block {
            self.tell_if_unknown(&directive.name, directive);
            if directive.name == "location" && depth < DEEPEST {
                self.location(directive, &inner, visitors, depth + 1);
            }
            if directive.name == "if" {
                let why = "what it decides has to be written as routes and their conditions";
                self.draft.leave_guard(&visitors.entrypoints, &directive.place, &directive.to_string(), why);
            }
        }
        let own = |name: &str| block.iter().find(|directive| directive.name == name);
        if let Some(answer) = own("return") {
            self.answer(answer, &inner, visitors, &path);
        } else if own("proxy_pass").is_some() {
            self.leads_to(location, &inner, visitors, &path);
        } else if let Some(fallback) = own("try_files").and_then(|files| self.named(files, scope)) {
            let inner = inner.within(fallback);
            self.leads_to(location, &inner, visitors, &path);
        } else {
            self.leads_nowhere(location, &inner, visitors);
        }
        path.path.is_none()
    }

    /// The block of `try_files … @name`.
    fn named(&self, files: &Directive, scope: &Scope<'a>) -> Option<&'a [Directive]> {
        let name = files.arguments.last().filter(|name| name.starts_with('@'))?;
        let named = |directive: &&'a Directive| directive.name == "location" && directive.first() == name;
        scope.own().iter().find(named)?.block.as_deref()
    }

    /// Files of the host, FastCGI, nothing at all.
    fn leads_nowhere(&mut self, location: &'a Directive, scope: &Scope<'a>, visitors: &Visitors) {
        let why = "Weir serves no files and speaks no FastCGI: a server has to answer for it";
        let chain = self.guards(scope, &visitors.entrypoints);
        if chain.is_empty() {
            self.draft.leave(&location.place, &location.to_string(), why);
        } else {
            // Its requests would take a route without this guard.
            self.draft.leave_guard(&visitors.entrypoints, &location.place, &location.to_string(), why);
        }
    }

    /// A route to a service.
    pub(super) fn leads_to(
        &mut self,
        location: &'a Directive,
        scope: &Scope<'a>,
        visitors: &Visitors,
        path: &Match,
    ) {
        let Some(pass) = scope.find("proxy_pass") else { return };
        let Some((service, to)) = self.service(pass, scope) else {
            let why = "where it leads is decided at run time, or isn't HTTP";
            self.draft.leave_guard(&visitors.entrypoints, &pass.place, &pass.to_string(), why);
            return;
        };
        let mut chain = self.guards(scope, &visitors.entrypoints);
        chain.extend(self.shape(scope));
        chain.extend(self.rewrites(scope, visitors));
        if !to.is_empty() {
            chain.extend(self.other_path(pass, path, &to));
        }
        let route = self.route(&location.place, visitors, path);
        if !chain.is_empty() {
            self.draft.set(route, "middleware", Value::Array(chain));
        }
        self.draft.set(route, "service", service);
        self.pages(route, scope);
    }

    /// `proxy_pass http://app/v1/` in `location /api/`: the one in the place of the other.
    fn other_path(&mut self, pass: &Directive, path: &Match, to: &str) -> Vec<Value> {
        let (from, to) =
            (path.prefix.as_deref().unwrap_or("/").trim_end_matches('/'), to.trim_end_matches('/'));
        let mut chain: Vec<Value> = Vec::new();
        if path.prefix.is_none() {
            self.draft.leave(&pass.place, &pass.to_string(), "the path in it: use `replace_path`");
        }
        if !from.is_empty() {
            chain.push(table_of([("strip_path", from.into())]).into());
        }
        if !to.is_empty() {
            chain.push(table_of([("add_path", to.into())]).into());
        }
        chain
    }

    /// `return`: a redirect, or nobody gets anything.
    pub(super) fn answer(
        &mut self,
        answer: &'a Directive,
        scope: &Scope<'a>,
        visitors: &Visitors,
        path: &Match,
    ) {
        let arguments: Vec<&str> = answer.arguments.iter().map(String::as_str).collect();
        let (status, url) = match arguments.as_slice() {
            [status, url] => (status.parse().unwrap_or(302), *url),
            [one] => match one.parse::<i64>() {
                Ok(status) => (status, ""),
                Err(_) => (302, *one),
            },
            _ => (0, ""),
        };
        let redirect = matches!(status, 301 | 302 | 303 | 307 | 308).then(|| redirect(url, status)).flatten();
        match (redirect, status) {
            (Some(redirect), _) => {
                let mut chain = self.guards(scope, &visitors.entrypoints);
                chain.push(table_of([("redirect", redirect.into())]).into());
                let route = self.route(&answer.place, visitors, path);
                self.draft.set(route, "middleware", Value::Array(chain));
            }
            (None, 400..=499) => {
                // Nobody, whatever the status was: a route needs a service all the same, and a redirect that is never met does.
                let nobody = table_of([(
                    "clients",
                    table_of([("deny", guard::strings(&guard::ALL.map(str::to_owned)))]).into(),
                )]);
                let route = self.route(&answer.place, visitors, path);
                let never = table_of([("redirect", table_of([("scheme", "https".into())]).into())]);
                self.draft.set(route, "middleware", Value::Array(vec![nobody.into(), never.into()]));
                self.draft.note(route, format!("nginx answered {status}; nobody gets in here, with 403"));
            }
            _ => {
                let why = "Weir has no answers of its own but pages and redirects";
                self.draft.leave_guard(&visitors.entrypoints, &answer.place, &answer.to_string(), why);
            }
        }
    }

    fn route(&mut self, place: &Place, visitors: &Visitors, path: &Match) -> usize {
        let host = visitors.hosts.first().and_then(Value::as_str).unwrap_or("any");
        let prefix = path.prefix.as_deref().unwrap_or("regex");
        let name = format!("{host}{}", if path.path.is_none() { "" } else { prefix });
        let route = self.draft.add(Kind::Route, &name, place);
        let name = self.draft.sections[route].name.clone();
        self.draft.set(route, "name", name);
        self.draft.set(route, "entrypoint", guard::strings(&visitors.entrypoints));
        match visitors.hosts.as_slice() {
            [] => {}
            [one] => self.draft.set(route, "host", one.clone()),
            several => self.draft.set(route, "host", Value::Array(several.to_vec())),
        }
        if let Some(path) = &path.path {
            self.draft.set(route, "path", path.clone());
        }
        route
    }

    /// Header fields, sizes, compression.
    fn shape(&mut self, scope: &Scope<'a>) -> Vec<Value> {
        let (mut request, mut response) = (toml::Table::new(), toml::Table::new());
        for set in scope.all("proxy_set_header") {
            let (name, value) = (set.first(), set.arguments.get(1).map_or("", String::as_str));
            // Weir says these by itself.
            let own = [
                "connection",
                "upgrade",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-forwarded-proto",
                "x-forwarded-server",
                "forwarded",
            ];
            if own.contains(&name.to_ascii_lowercase().as_str())
                || (name == "Host" && matches!(value, "$host" | "$http_host"))
            {
                continue;
            }
            match with_variables(value) {
                Some(value) if value.is_empty() => push(&mut request, "remove", name),
                Some(value) => insert(&mut request, "set", name, &value),
                None if name == "Host" && value == "$proxy_host" => {}
                None => self.draft.leave(&set.place, &set.to_string(), "Weir has no such variable"),
            }
        }
        for add in scope.all("add_header") {
            let (name, value) = (add.first(), add.arguments.get(1).map_or("", String::as_str));
            match with_variables(value) {
                Some(value) if !value.is_empty() && name != "Alt-Svc" => {
                    insert(&mut response, "set", name, &value);
                }
                _ => self.draft.leave(
                    &add.place,
                    &add.to_string(),
                    "Weir has no such variable, or says it by itself",
                ),
            }
        }
        for hide in scope.all("proxy_hide_header") {
            push(&mut response, "remove", hide.first());
        }
        let mut headers = toml::Table::new();
        for (side, changes) in [("request", request), ("response", response)] {
            if !changes.is_empty() {
                headers.insert(side.into(), changes.into());
            }
        }
        let mut chain: Vec<Value> = Vec::new();
        if !headers.is_empty() {
            chain.push(table_of([("headers", headers.into())]).into());
        }
        if let Some(most) = scope.find("client_max_body_size").and_then(|most| convert::size(most.first())) {
            chain.push(table_of([("body_limit", most.into())]).into());
        }
        if scope.find("gzip").is_some_and(|gzip| gzip.first() == "on") {
            chain.push(table_of([("compress", toml::Table::new().into())]).into());
        }
        chain
    }

    /// `rewrite`: redirects, and other paths for servers.
    fn rewrites(&mut self, scope: &Scope<'a>, visitors: &Visitors) -> Vec<Value> {
        let mut chain: Vec<Value> = Vec::new();
        for rewrite in scope.own().iter().filter(|directive| directive.name == "rewrite") {
            let arguments: Vec<&str> = rewrite.arguments.iter().map(String::as_str).collect();
            let (pattern, to, flag) = match arguments.as_slice() {
                [pattern, to] => (*pattern, *to, ""),
                [pattern, to, flag] => (*pattern, *to, *flag),
                _ => continue,
            };
            let replace = |to: &str| table_of([("regex", whole(pattern).into()), ("to", to.into())]);
            let captures_only =
                to.split('$').skip(1).all(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
            match flag {
                "permanent" | "redirect" if to.starts_with('/') && captures_only => {
                    let status: i64 = if flag == "permanent" { 301 } else { 302 };
                    let redirect = table_of([("path", replace(to).into()), ("status", status.into())]);
                    chain.push(table_of([("redirect", redirect.into())]).into());
                }
                "break" | "last" | "" if to.starts_with('/') && captures_only && !to.contains('?') => {
                    chain.push(table_of([("replace_path", replace(to).into())]).into());
                }
                _ => self.draft.leave_guard(
                    &visitors.entrypoints,
                    &rewrite.place,
                    &rewrite.to_string(),
                    "it isn't understood",
                ),
            }
        }
        chain
    }

    /// `error_page 502 503 /maintenance.html` with a file of the host.
    fn pages(&mut self, route: usize, scope: &Scope<'a>) {
        for directive in scope.all("error_page") {
            let Some((page, statuses)) = directive.arguments.split_last() else { continue };
            let root = scope.find("root").map(Directive::first);
            let statuses: Vec<_> = statuses
                .iter()
                .filter(|status| status.parse::<u16>().is_ok_and(|status| (400..600).contains(&status)))
                .collect();
            match root {
                Some(root) if page.starts_with('/') && !page.contains('$') && !statuses.is_empty() => {
                    let file = format!("{}{page}", root.trim_end_matches('/'));
                    let same = |section: &crate::import::draft::Section| {
                        section.kind == Kind::Page
                            && section.keys.iter().any(|(_, value)| value.as_str() == Some(&file))
                    };
                    let section = match self.draft.sections.iter().position(same) {
                        Some(known) => known,
                        None => {
                            let section =
                                self.draft.add(Kind::Page, page.trim_matches('/'), &directive.place);
                            self.draft.set(section, "html", file);
                            section
                        }
                    };
                    let name = self.draft.sections[section].name.clone();
                    for status in statuses {
                        self.draft.put(route, "pages", status, name.as_str());
                    }
                }
                _ => self.draft.leave(
                    &directive.place,
                    &directive.to_string(),
                    "a page is an HTML file of this host",
                ),
            }
        }
    }
}

/// Where a `return` sends a client. `None`: to where it isn't known before.
fn redirect(url: &str, status: i64) -> Option<toml::Table> {
    let mut table = table_of([("status", status.into())]);
    let path = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            table.insert("scheme".into(), scheme.into());
            let (host, path) =
                rest.find(['/', '$']).filter(|at| *at > 0).map_or((rest, ""), |at| rest.split_at(at));
            let (host, path) = match rest
                .strip_prefix("$host")
                .or_else(|| rest.strip_prefix("$http_host"))
                .or_else(|| rest.strip_prefix("$server_name"))
            {
                Some(path) => ("", path),
                None => (host, path),
            };
            if host.contains('$') {
                return None;
            }
            if !host.is_empty() {
                table.insert("host".into(), host.into());
            }
            path
        }
        Some(("$scheme", rest)) => {
            let (host, path) =
                rest.find(['/', '$']).filter(|at| *at > 0).map_or((rest, ""), |at| rest.split_at(at));
            if host.contains('$') || host.is_empty() {
                return None;
            }
            table.insert("host".into(), host.into());
            path
        }
        Some(_) => return None,
        None => url,
    };
    match path {
        "$request_uri" | "$uri" | "$uri$is_args$args" => {}
        "" => {
            table.insert("path".into(), table_of([("regex", ".*".into()), ("to", "/".into())]).into());
        }
        fixed if fixed.starts_with('/') && !fixed.contains('$') => {
            table.insert("path".into(), table_of([("regex", ".*".into()), ("to", fixed.into())]).into());
        }
        _ => return None,
    }
    Some(table)
}

/// nginx looks for a match anywhere; Weir wants one of the whole.
fn whole(pattern: &str) -> String {
    let (flags, pattern) = pattern.strip_prefix("(?i)").map_or(("", pattern), |rest| ("(?i)", rest));
    let front = if pattern.starts_with('^') { "" } else { ".*" };
    let ended = pattern.ends_with('$') && !pattern.ends_with("\\$");
    let back = if ended { "" } else { ".*" };
    let middle = pattern.strip_prefix('^').unwrap_or(pattern);
    let middle = if ended { &middle[..middle.len() - 1] } else { middle };
    if middle.contains('|') {
        format!("{flags}{front}(?:{middle}){back}")
    } else {
        format!("{flags}{front}{middle}{back}")
    }
}

pub(super) fn regex(pattern: &str) -> toml::Table {
    table_of([("regex", whole(pattern).into())])
}

fn insert(changes: &mut toml::Table, how: &str, name: &str, value: &str) {
    if let Value::Table(table) = changes.entry(how).or_insert_with(|| toml::Table::new().into()) {
        table.insert(name.to_owned(), value.into());
    }
}

fn push(changes: &mut toml::Table, how: &str, name: &str) {
    if let Value::Array(list) = changes.entry(how).or_insert_with(|| Value::Array(Vec::new())) {
        list.push(name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_as_they_matched_a_part() {
        for (from, to) in [
            ("^/a/(.*)$", "/a/(.*)"),
            ("\\.php$", ".*\\.php"),
            ("(?i)\\.(jpg|png)$", "(?i).*(?:\\.(jpg|png))"),
            ("^/x", "/x.*"),
            ("^a|b$", "(?:a|b)"),
        ] {
            assert_eq!(whole(from), to);
        }
    }

    #[test]
    fn redirects_are_taken_apart() {
        for (url, keys) in [
            ("https://$host$request_uri", Some("scheme = \"https\"\nstatus = 301\n")),
            (
                "https://www.example.com$request_uri",
                Some("host = \"www.example.com\"\nscheme = \"https\"\nstatus = 301\n"),
            ),
            ("$scheme://example.com$request_uri", Some("host = \"example.com\"\nstatus = 301\n")),
            ("https://$arg_to/", None),
            ("/new", Some("status = 301\n\n[path]\nregex = \".*\"\nto = \"/new\"\n")),
        ] {
            let mut written = redirect(url, 301).map(|table| toml::to_string(&table).unwrap());
            if let Some(text) = &mut written {
                let mut lines: Vec<&str> = text.lines().collect();
                if !text.contains('[') {
                    lines.sort_unstable();
                }
                *text = lines.join("\n") + "\n";
            }
            assert_eq!(written.as_deref(), keys, "{url}");
        }
    }
}
