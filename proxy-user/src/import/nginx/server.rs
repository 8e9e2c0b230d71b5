//! A `server` block: its names, and a route for each location.

use toml::Value;

use super::{Directive, Nginx, Scope, location::Match};
use crate::import::convert;

/// Looked at here, in `listen` or in `guard`.
pub(super) const KNOWN: &[&str] = &[
    "allow",
    "auth_basic",
    "auth_basic_user_file",
    "auth_jwt",
    "auth_request",
    "deny",
    "internal",
    "limit_except",
    "limit_req",
    "listen",
    "location",
    "real_ip_header",
    "real_ip_recursive",
    "satisfy",
    "secure_link",
    "server_name",
    "set_real_ip_from",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_verify_client",
    "ssl_verify_depth",
    "valid_referers",
];

/// For whom a server's routes are.
pub(super) struct Visitors {
    pub entrypoints: Vec<String>,
    /// Empty: any host.
    pub hosts: Vec<Value>,
}

impl<'a> Nginx<'a> {
    pub(super) fn server(&mut self, server: &'a Directive, scope: &Scope<'a>) {
        let mut at = self.entrypoints(server, scope);
        if at.is_empty() {
            let why = "it listens on nothing that Weir could listen on";
            self.draft.leave(&server.place, &format!("server {}", names(scope).join(" ")), why);
            return;
        }
        at.dedup();
        let hosts = self.hosts(scope);
        let mut visitors = Vec::new();
        let everywhere: Vec<String> = at.iter().map(|(name, _)| name.clone()).collect();
        let default: Vec<String> =
            at.iter().filter(|(_, default)| *default).map(|(name, _)| name.clone()).collect();
        let takes_all = default.len() == everywhere.len() && self.is_alone(&at);
        if !hosts.is_empty() && !takes_all {
            visitors.push(Visitors { entrypoints: everywhere, hosts });
        }
        if !default.is_empty() {
            visitors.push(Visitors { entrypoints: default, hosts: Vec::new() });
        }
        for directive in scope.own() {
            self.tell_if_unknown(&directive.name, directive);
            if let ("if" | "limit_conn", Some(_)) = (directive.name.as_str(), &directive.block) {
                let entrypoints: Vec<_> = at.iter().map(|(name, _)| name.clone()).collect();
                let why = "what it decides has to be written as routes and their conditions";
                self.draft.leave_guard(&entrypoints, &directive.place, &directive.to_string(), why);
            }
        }
        for visitors in &visitors {
            self.locations(server, scope, visitors);
        }
    }

    fn locations(&mut self, server: &'a Directive, scope: &Scope<'a>, visitors: &Visitors) {
        // What a server answers itself comes before any location.
        if let Some(answer) = scope.own().iter().find(|directive| directive.name == "return") {
            self.answer(answer, scope, visitors, &Match::everything());
            return;
        }
        let mut covered = false;
        for location in scope.own().iter().filter(|directive| directive.name == "location") {
            covered |= self.location(location, scope, visitors, 0);
        }
        if !covered && scope.own().iter().any(|directive| directive.name == "proxy_pass") {
            self.leads_to(server, scope, visitors, &Match::everything());
        }
    }

    fn hosts(&mut self, scope: &Scope<'a>) -> Vec<Value> {
        let mut hosts = Vec::new();
        for directive in scope.own().iter().filter(|directive| directive.name == "server_name") {
            for name in &directive.arguments {
                match name.as_str() {
                    "_" | "" => {}
                    name if name.starts_with('~') => hosts.push(super::location::regex(&name[1..]).into()),
                    name => {
                        // `.example.com` is the name itself and all below it.
                        let all =
                            name.strip_prefix('.').map(|base| vec![base.to_owned(), format!("*.{base}")]);
                        for name in all.unwrap_or_else(|| vec![name.to_owned()]) {
                            match convert::host(&name) {
                                Some(host) => hosts.push(host.into()),
                                None => self.draft.leave(
                                    &directive.place,
                                    &name,
                                    "a host is a name, or `*.` and a name",
                                ),
                            }
                        }
                    }
                }
            }
        }
        hosts.dedup();
        hosts
    }
}

pub(super) fn names<'a>(scope: &Scope<'a>) -> Vec<&'a str> {
    let named = scope.own().iter().filter(|directive| directive.name == "server_name");
    named.flat_map(|directive| directive.arguments.iter().map(String::as_str)).collect()
}
