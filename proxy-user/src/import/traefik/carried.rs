//! Routers of TCP and UDP: passthrough routes, by the names in TLS's hello or by entrypoint.

use super::{Node, Traefik, plain, rule, strings};
use crate::import::{
    convert,
    draft::{Kind, table_of},
};

/// As deep as services may be made of others.
const DEEPEST: usize = 4;

impl<'a> Traefik<'a> {
    /// Comes behind the routers of HTTP: an entrypoint that has some is one of HTTP, and carries names alone.
    pub(super) fn carried(&mut self) {
        for protocol in ["tcp", "udp"] {
            for (name, router) in self.all(&[protocol, "routers"]) {
                self.carrying_router(protocol, name, router);
            }
        }
    }

    fn carrying_router(&mut self, protocol: &'static str, name: &'a str, router: &'a Node) {
        let what = format!("{protocol} router {name}");
        let names = match self.names_of(protocol, router) {
            Ok(names) => names,
            Err(why) => return self.draft.leave(&router.place, &what, &why),
        };
        let entrypoints = self.entrypoints_of(router);
        if entrypoints.is_empty() {
            return self.draft.leave(
                &router.place,
                &what,
                "it names no entrypoint: name those that it is for",
            );
        }
        let mut taken = Vec::new();
        for own in &entrypoints {
            let Some(entrypoint) = self.entrypoints.values_mut().find(|known| known.name == *own) else {
                continue;
            };
            if entrypoint.is_of_http() && names.is_empty() {
                let why = format!("entrypoint `{own}` speaks HTTP: only names can be carried past that");
                self.draft.leave(&router.place, &what, &why);
                continue;
            }
            entrypoint.carries = Some(protocol);
            taken.push(own.clone());
        }
        if taken.is_empty() {
            return;
        }
        self.carrying_guards(protocol, &what, router, &taken);
        let asked = router.text_of("service").unwrap_or_default();
        let Some(service) = self.carrying_service(protocol, plain(asked), 0) else {
            let why =
                format!("there is no service `{asked}` of {protocol} that connections could be carried to");
            return self.draft.leave(&router.place, &what, &why);
        };
        let route = self.draft.add(Kind::Route, plain(name), &router.place);
        let name = self.draft.sections[route].name.clone();
        self.draft.set(route, "name", name);
        self.draft.set(route, "entrypoint", strings(&taken));
        if !names.is_empty() {
            self.draft.set(route, "sni", strings(&names));
        }
        self.draft.set(route, "passthrough", service);
    }

    /// The names that it takes; none: all.
    fn names_of(&self, protocol: &str, router: &Node) -> Result<Vec<String>, String> {
        if protocol == "udp" {
            return Ok(Vec::new());
        }
        let tls = router.get("tls").filter(|tls| tls.text() != Some("false"));
        if tls.is_some_and(|tls| !tls.is_true("passthrough")) {
            return Err("TLS that ends here is of HTTP: what is carried is not decrypted".into());
        }
        let names = rule::names(router.text_of("rule").unwrap_or_default())?;
        match (tls, names) {
            (_, names) if names.iter().any(|name| name == "*") => Ok(Vec::new()),
            (None, _) => Err("without TLS there are no names to ask for".into()),
            (Some(_), names) => names
                .iter()
                .map(|name| convert::host(name).ok_or_else(|| format!("`{name}` is no name")))
                .collect(),
        }
    }

    /// Who may come in is an entrypoint's own list here.
    fn carrying_guards(&mut self, protocol: &str, what: &str, router: &'a Node, entrypoints: &[String]) {
        for name in router.texts_of("middlewares") {
            let known = self.one(&[protocol, "middlewares"], plain(name)).map(|(_, node)| node);
            let place = known.map_or(&router.place, |node| &node.place);
            let why = "write who may come in as an allowlist, and its name in the entrypoint's `allow`";
            self.draft.leave_guard(entrypoints, place, &format!("middleware {name} of {what}"), why);
        }
    }

    fn carrying_service(&mut self, protocol: &'static str, name: &str, depth: usize) -> Option<String> {
        let (name, node) = self.one(&[protocol, "services"], name)?;
        if let Some(known) = self.carrying.get(&(protocol, name)) {
            return Some(known.clone());
        }
        let section = if let Some(weighted) = node.get("weighted").filter(|_| depth < DEEPEST) {
            let mut split = toml::Table::new();
            for part in weighted.get("services").map(Node::items).unwrap_or_default() {
                let service = self.carrying_service(protocol, plain(part.text_of("name")?), depth + 1)?;
                split.insert(service, part.number_of("weight").unwrap_or(1).clamp(0, 10_000).into());
            }
            let section = self.draft.add(Kind::Service, name, &weighted.place);
            self.draft.set(section, "split", split);
            section
        } else {
            let balancer = node.get("loadBalancer")?;
            let servers = balancer.get("servers").map(Node::items).unwrap_or_default();
            let addresses: Vec<String> = servers
                .iter()
                .filter_map(|server| convert::server(server.text_of("address")?, 0))
                .filter(|address| !address.ends_with(":0"))
                .collect();
            if addresses.is_empty() {
                return None;
            }
            let section = self.draft.add(Kind::Service, name, &balancer.place);
            self.draft.set(section, "servers", strings(&addresses));
            // Traefik asks nobody who is of TCP whether he is well; whoever can't be reached is found out here before a visitor does.
            if protocol == "tcp" {
                self.draft.set(section, "health", table_of([("tcp", true.into())]));
            }
            if let Some(told) = balancer.get("proxyProtocol") {
                let version = if told.text_of("version") == Some("1") { "v1" } else { "v2" };
                self.draft.set(section, "send_proxy", version);
            }
            section
        };
        let made = self.draft.sections[section].name.clone();
        self.carrying.insert((protocol, name), made.clone());
        Some(made)
    }
}
