//! `upstream` blocks, and the addresses of `proxy_pass`: services.

use std::time::Duration;

use toml::Value;

use super::{Directive, Nginx, Scope};
use crate::import::{
    convert,
    draft::{Kind, table_of},
};

impl<'a> Nginx<'a> {
    /// The service that a `proxy_pass` asks, and the path in its URL. `None`: it can't be said what it asks.
    pub(super) fn service(&mut self, pass: &'a Directive, scope: &Scope<'a>) -> Option<(String, String)> {
        let target = pass.first();
        let (scheme, rest) = target.split_once("://")?;
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if target.contains('$') || !matches!(scheme, "http" | "https") || host.starts_with("unix:") {
            return None;
        }
        let tls = scheme == "https";
        let key = (host.to_owned(), tls);
        if let Some(name) = self.services.get(&key) {
            return Some((name.clone(), path.to_owned()));
        }
        let section = match self.upstreams.get(host).copied() {
            Some(upstream) => self.of_upstream(upstream)?,
            None => {
                let server = convert::server(host, if tls { 443 } else { 80 })?;
                let section = self.draft.add(Kind::Service, convert::host_of(&server), &pass.place);
                self.draft.push(section, "servers", server);
                section
            }
        };
        if tls {
            let name = scope.find("proxy_ssl_name").map(Directive::first).filter(|name| !name.contains('$'));
            let name = name.unwrap_or_else(|| {
                if self.upstreams.contains_key(host) { host } else { convert::host_of(host) }
            });
            let mut table = table_of([("server_name", name.into())]);
            if scope.find("proxy_ssl_verify").is_some_and(|verify| verify.first() == "on") {
                if let Some(ca) = scope.find("proxy_ssl_trusted_certificate") {
                    table.insert("ca".into(), ca.first().into());
                }
            } else {
                // As nginx does without being told otherwise.
                table.insert("insecure".into(), true.into());
                self.draft.note(section, "insecure, as nginx is by default: better name a `ca` in its place");
            }
            self.draft.set(section, "tls", table);
        }
        self.timeouts(section, scope);
        let name = self.draft.sections[section].name.clone();
        self.services.insert(key, name.clone());
        Some((name, path.to_owned()))
    }

    pub(super) fn of_upstream(&mut self, upstream: &'a Directive) -> Option<usize> {
        let block = upstream.block.as_deref()?;
        let section = self.draft.add(Kind::Service, upstream.first(), &upstream.place);
        for directive in block {
            match directive.name.as_str() {
                "server" => self.server_of(section, directive),
                "least_conn" => self.draft.set(section, "balance", "least_requests"),
                "random" => self.draft.note(section, "nginx drew servers by lot; they take turns here"),
                "ip_hash" => self.hash(section, "client"),
                "hash" => match hash_key(directive.first()) {
                    Some(key) => self.hash(section, &key),
                    None => self.draft.leave(
                        &directive.place,
                        &directive.to_string(),
                        "a hash goes by client, path, header, cookie or query",
                    ),
                },
                "sticky" if directive.first() == "cookie" => {
                    let name = directive.arguments.get(1).map_or("weir", String::as_str);
                    self.draft.set(section, "sticky", table_of([("name", name.into())]));
                }
                other => self.tell_if_unknown(other, directive),
            }
        }
        Some(section)
    }

    fn hash(&mut self, section: usize, key: &str) {
        self.draft.set(section, "balance", "hash");
        self.draft.set(section, "hash_by", key);
    }

    fn server_of(&mut self, section: usize, directive: &Directive) {
        let Some(address) = convert::server(directive.first(), 80) else {
            self.draft.leave(
                &directive.place,
                &directive.to_string(),
                "servers are addresses or names, with a port",
            );
            return;
        };
        let mut table = table_of([("address", address.clone().into())]);
        for argument in directive.arguments.iter().skip(1) {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            match (key, value.parse::<i64>()) {
                ("weight", Ok(weight)) => _ = table.insert("weight".into(), weight.clamp(1, 256).into()),
                ("backup", _) => _ = table.insert("tier".into(), 2.into()),
                ("down", _) => {
                    self.draft.leave(&directive.place, &directive.to_string(), "it is marked down");
                    return;
                }
                ("max_fails", Ok(fails)) if fails > 0 => {
                    self.draft.put(section, "eject", "after", fails.min(1000));
                }
                ("fail_timeout", _) => {
                    if let Some(time) = convert::duration(value, Duration::from_secs(1)) {
                        let shown =
                            convert::shown(time, Duration::from_millis(100), Duration::from_secs(3600));
                        self.draft.put(section, "eject", "for", shown);
                    }
                }
                ("max_fails" | "resolve" | "max_conns" | "slow_start" | "service" | "route" | "", _) => {}
                _ => self.draft.leave(&directive.place, argument, "it has no counterpart here"),
            }
        }
        let plain = table.len() == 1;
        self.draft.push(section, "servers", if plain { Value::from(address) } else { Value::from(table) });
    }

    fn timeouts(&mut self, section: usize, scope: &Scope<'a>) {
        let (least, second) = (Duration::from_millis(1), Duration::from_secs(1));
        for (directive, key, most) in [
            ("proxy_connect_timeout", "connect", Duration::from_secs(60)),
            ("proxy_read_timeout", "first_byte", Duration::from_secs(24 * 3600)),
        ] {
            let time = scope.find(directive).and_then(|time| convert::duration(time.first(), second));
            if let Some(time) = time {
                self.draft.put(section, "timeouts", key, convert::shown(time, least, most));
            }
        }
    }
}

fn hash_key(variable: &str) -> Option<String> {
    let variable = variable.strip_prefix('$')?;
    Some(match variable {
        "remote_addr" | "binary_remote_addr" => "client".into(),
        "uri" | "request_uri" => "path".into(),
        _ => {
            let (kind, name) = variable.split_once('_')?;
            match kind {
                "http" => format!("header:{}", name.replace('_', "-")),
                "cookie" => format!("cookie:{name}"),
                "arg" => format!("query:{name}"),
                _ => return None,
            }
        }
    })
}
