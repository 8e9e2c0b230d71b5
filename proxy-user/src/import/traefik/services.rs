//! Services: load balancers, weighted ones, fail-over.

use std::time::Duration;

use toml::Value;

use super::{Node, Traefik, plain, strings};
use crate::import::{
    convert,
    draft::{Kind, table_of},
};

impl<'a> Traefik<'a> {
    /// Weir's name for a service, which is written when it is first asked for. `None`: there is none that serves HTTP.
    pub(super) fn service(&mut self, name: &str) -> Option<String> {
        let (name, node) = self.one(&["http", "services"], name)?;
        if let Some(known) = self.services.get(name) {
            return Some(known.clone());
        }
        if self.underway.contains(&name) || self.underway.len() > 8 {
            return None;
        }
        self.underway.push(name);
        let made = self.make_service(name, node);
        self.underway.pop();
        let made = made?;
        self.services.insert(name, made.clone());
        Some(made)
    }

    fn make_service(&mut self, name: &'a str, node: &'a Node) -> Option<String> {
        if let Some(balancer) = node.get("loadBalancer") {
            return self.load_balancer(name, balancer);
        }
        if let Some(weighted) = node.get("weighted") {
            let mut split = toml::Table::new();
            for part in weighted.get("services").map(Node::items).unwrap_or_default() {
                let service = self.service(plain(part.text_of("name")?))?;
                split.insert(service, part.number_of("weight").unwrap_or(1).clamp(0, 10_000).into());
            }
            let section = self.draft.add(Kind::Service, name, &weighted.place);
            self.draft.set(section, "split", split);
            if weighted.get("sticky").is_some() {
                self.draft.set(section, "sticky", "cookie");
            }
            return Some(self.draft.sections[section].name.clone());
        }
        if let Some(failover) = node.get("failover") {
            let first = self.service(plain(failover.text_of("service")?))?;
            let second = self.service(plain(failover.text_of("fallback")?))?;
            let section = self.draft.add(Kind::Service, name, &failover.place);
            self.draft.set(section, "failover", strings(&[first, second]));
            return Some(self.draft.sections[section].name.clone());
        }
        if let Some(mirroring) = node.get("mirroring") {
            let why = "copies are written as the service's `mirror`";
            self.draft.leave(&mirroring.place, &format!("mirrors of service {name}"), why);
            return self.service(plain(mirroring.text_of("service")?));
        }
        self.draft.leave(&node.place, &format!("service {name}"), "this kind of service isn't known here");
        None
    }

    fn load_balancer(&mut self, name: &'a str, balancer: &'a Node) -> Option<String> {
        let mut servers = Vec::new();
        let mut secure = None;
        for node in balancer.get("servers").map(Node::items).unwrap_or_default() {
            let url = node.text_of("url").unwrap_or_default();
            let Some((tls, address, path)) = convert::url(url) else {
                self.draft.leave(
                    &node.place,
                    &format!("url: {url}"),
                    "servers are `http://` or `https://`, a host and a port",
                );
                continue;
            };
            if *secure.get_or_insert(tls) != tls {
                self.draft.leave(
                    &node.place,
                    &format!("url: {url}"),
                    "the servers of a service all speak TLS, or none does",
                );
                continue;
            }
            if !matches!(path.as_str(), "" | "/") {
                self.draft.leave(
                    &node.place,
                    &format!("the path in {url}"),
                    "the middleware `add_path` does it",
                );
            }
            servers.push(match node.number_of("weight") {
                Some(weight) => {
                    table_of([("address", address.into()), ("weight", weight.clamp(1, 256).into())]).into()
                }
                None => Value::from(address),
            });
        }
        let first = servers.first().map(|server| {
            server.as_str().or_else(|| server.get("address")?.as_str()).unwrap_or_default().to_owned()
        })?;
        let section = self.draft.add(Kind::Service, name, &balancer.place);
        self.draft.set(section, "servers", Value::Array(servers));
        if secure == Some(true) {
            self.server_tls(section, balancer, &first);
        }
        if let Some(check) = balancer.get("healthCheck") {
            self.health(section, check);
        }
        if let Some(cookie) = balancer.at(&["sticky", "cookie"]) {
            let mut sticky = toml::Table::new();
            if let Some(name) = cookie.text_of("name") {
                sticky.insert("name".into(), name.into());
            }
            if cookie.is_true("secure") {
                sticky.insert("secure".into(), true.into());
            }
            if let Some(site @ ("strict" | "lax" | "none")) = cookie.text_of("sameSite") {
                _ = sticky.insert("same_site".into(), site.into());
            }
            self.draft.set(
                section,
                "sticky",
                if sticky.is_empty() { Value::from("cookie") } else { sticky.into() },
            );
        }
        if balancer.text_of("passHostHeader") == Some("false") {
            let why = "`headers = { request = { set = { Host = \"…\" } } }` does it";
            self.draft.leave(&balancer.place, &format!("passHostHeader of service {name}"), why);
        }
        for key in ["strategy", "responseForwarding", "passiveHealthCheck"] {
            if let Some(node) = balancer.get(key) {
                self.draft.leave(
                    &node.place,
                    &format!("{key} of service {name}"),
                    "it has no counterpart here",
                );
            }
        }
        Some(self.draft.sections[section].name.clone())
    }

    fn server_tls(&mut self, section: usize, balancer: &'a Node, first: &str) {
        let named = balancer.text_of("serversTransport");
        let transport = named
            .and_then(|name| self.one(&["http", "serversTransports"], plain(name)))
            .map(|(_, node)| node);
        let host = convert::host_of(first).trim_matches(['[', ']']);
        let name = transport.and_then(|transport| transport.text_of("serverName")).unwrap_or(host);
        let mut tls = table_of([("server_name", name.into())]);
        if let Some(transport) = transport {
            if transport.is_true("insecureSkipVerify") {
                tls.insert("insecure".into(), true.into());
                self.draft
                    .note(section, "insecure, as `insecureSkipVerify` says: better name a `ca` in its place");
            } else if let Some(ca) = transport.texts_of("rootCAs").first() {
                tls.insert("ca".into(), (*ca).into());
            }
        } else if let Some(name) = named {
            self.draft.leave(
                &balancer.place,
                &format!("serversTransport {name}"),
                "it is in none of these files",
            );
        }
        self.draft.set(section, "tls", tls);
    }

    fn health(&mut self, section: usize, check: &Node) {
        let mut health = table_of([("path", check.text_of("path").unwrap_or("/").into())]);
        let second = Duration::from_secs(1);
        // A second more often than Traefik's own 30, which noticed nothing for long.
        for (key, from, least) in [("every", "interval", 10), ("timeout", "timeout", 1)] {
            if let Some(time) = check.text_of(from).and_then(|time| convert::duration(time, second)) {
                health.insert(
                    key.into(),
                    convert::shown(time, Duration::from_millis(least), Duration::from_secs(3600)),
                );
            }
        }
        for (key, from) in [("host", "hostname"), ("method", "method")] {
            if let Some(text) = check.text_of(from) {
                health.insert(key.into(), text.into());
            }
        }
        if let Some(port) = check.number_of("port").filter(|port| (1..=65_535).contains(port)) {
            health.insert("port".into(), port.into());
        }
        if let Some(status) = check.text_of("status").filter(|status| *status != "0") {
            health.insert("status".into(), Value::Array(vec![status.into()]));
        }
        self.draft.set(section, "health", health);
    }
}
