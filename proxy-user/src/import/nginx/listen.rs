//! `listen`, certificates and client addresses: servers that listen on one address become one entrypoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use toml::Value;

use super::{Directive, Nginx, Scope, guard};
use crate::import::{
    Place, convert,
    draft::{Kind, table_of},
};

/// An address and port, where all addresses of either family are one.
type Key = (u16, Option<IpAddr>);

#[derive(Default)]
pub(super) struct Listeners {
    known: BTreeMap<Key, Listener>,
}

struct Listener {
    name: String,
    bind: BTreeSet<SocketAddr>,
    tls: bool,
    http3: bool,
    certificates: Vec<String>,
    client_ca: Option<String>,
    /// `None`: not yet; `Some(None)`: servers differ.
    client_ip: Option<Option<(String, Vec<String>)>>,
    /// The server for hosts that no other has, by its place; and whether it says so itself.
    default: (Place, bool),
    servers: usize,
    place: Place,
}

impl<'a> Nginx<'a> {
    /// Notes where a server listens.
    pub(super) fn listen(&mut self, server: &'a Directive, scope: &Scope<'a>) {
        for listen in listens(scope) {
            let Some(address) = convert::listen(listen.first()) else {
                self.draft.leave(
                    &listen.place,
                    &listen.to_string(),
                    "only addresses and ports can be listened on",
                );
                continue;
            };
            let has = |word: &str| listen.arguments.iter().any(|argument| argument == word);
            let name = name_of(address);
            let listener = self.listeners.known.entry(key(address)).or_insert_with(|| Listener {
                name: name.clone(),
                bind: BTreeSet::new(),
                tls: false,
                http3: false,
                certificates: Vec::new(),
                client_ca: None,
                client_ip: None,
                default: (server.place.clone(), false),
                servers: 0,
                place: listen.place.clone(),
            });
            listener.servers += 1;
            listener.bind.insert(address);
            listener.tls |= has("ssl") || has("quic");
            listener.http3 |= has("quic");
            if has("default_server") && !listener.default.1 {
                listener.default = (server.place.clone(), true);
            }
            if has("proxy_protocol") {
                let why =
                    "name the proxies in an allowlist, and that in `proxy_protocol = { from = [\"…\"] }`";
                self.draft.leave_guard(&[name], &listen.place, &listen.to_string(), why);
            }
        }
        self.certificates(scope);
        self.client_addresses(scope);
    }

    /// Of the entrypoints at which a server listens: their names, and whether it is the default there.
    pub(super) fn entrypoints(&self, server: &Directive, scope: &Scope<'_>) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for listen in listens(scope) {
            let Some(listener) =
                convert::listen(listen.first()).and_then(|at| self.listeners.known.get(&key(at)))
            else {
                continue;
            };
            let is_default = listener.default.0 == server.place;
            if !found.iter().any(|(name, _)| *name == listener.name) {
                found.push((listener.name.clone(), is_default));
            }
        }
        found
    }

    /// Whether nobody else listens at any of these.
    pub(super) fn is_alone(&self, entrypoints: &[(String, bool)]) -> bool {
        let servers = |name: &str| self.listeners.known.values().find(|known| known.name == name);
        entrypoints
            .iter()
            .all(|(name, _)| servers(name).is_some_and(|known| known.bind.len() >= known.servers))
            && self.listeners.known.values().all(|known| known.default.0 == self.first_default())
    }

    fn first_default(&self) -> Place {
        let first = self.listeners.known.values().next();
        first.map_or_else(|| Place { file: "".into(), line: 0 }, |known| known.default.0.clone())
    }

    fn certificates(&mut self, scope: &Scope<'a>) {
        let chains = scope.all("ssl_certificate");
        let keys = scope.all("ssl_certificate_key");
        let names: Vec<String> = self.tls_entrypoints(scope);
        for (chain, key) in chains.iter().zip(&keys) {
            let Some(certificate) = convert::pair(chain.first(), key.first()) else {
                let why = format!(
                    "a key stands beside its certificate here, or in the same file: put {} beside it as NAME.key",
                    key.first()
                );
                self.draft.leave(&chain.place, &chain.to_string(), &why);
                for name in &names {
                    self.draft.hold_back(name, &format!("{}: {why}", chain.place));
                }
                continue;
            };
            for listener in self.listeners.known.values_mut().filter(|known| names.contains(&known.name)) {
                if !listener.certificates.contains(&certificate) {
                    listener.certificates.push(certificate.clone());
                }
            }
        }
        let verify = scope.find("ssl_verify_client").map(Directive::first);
        if let Some(verify @ ("on" | "optional" | "optional_no_ca")) = verify {
            let ca = scope.find("ssl_client_certificate");
            let shared = self
                .listeners
                .known
                .values()
                .any(|known| names.contains(&known.name) && known.servers > known.bind.len());
            match ca {
                Some(ca) if verify == "on" && !shared => {
                    for listener in
                        self.listeners.known.values_mut().filter(|known| names.contains(&known.name))
                    {
                        listener.client_ca = Some(ca.first().to_owned());
                    }
                }
                _ => {
                    if let Some(directive) = scope.find("ssl_verify_client") {
                        let why = "write it as the entrypoint's `tls.client_ca`, or for a host in `tls.host`";
                        self.draft.leave_guard(&names, &directive.place, &directive.to_string(), why);
                    }
                }
            }
        }
    }

    fn tls_entrypoints(&self, scope: &Scope<'_>) -> Vec<String> {
        listens(scope)
            .iter()
            .filter_map(|listen| self.listeners.known.get(&key(convert::listen(listen.first())?)))
            .filter(|listener| listener.tls)
            .map(|listener| listener.name.clone())
            .collect()
    }

    /// `real_ip_header` and `set_real_ip_from`.
    fn client_addresses(&mut self, scope: &Scope<'a>) {
        let Some(header) = scope.find("real_ip_header") else { return };
        let from: Vec<String> =
            scope.all("set_real_ip_from").iter().filter_map(|from| convert::prefix(from.first())).collect();
        if from.is_empty() || header.first() == "proxy_protocol" {
            self.draft.leave(
                &header.place,
                &header.to_string(),
                "nobody is named by an address whose header is believed",
            );
            return;
        }
        let wanted = Some((header.first().to_owned(), from));
        for listen in listens(scope) {
            let Some(listener) =
                convert::listen(listen.first()).and_then(|at| self.listeners.known.get_mut(&key(at)))
            else {
                continue;
            };
            match &listener.client_ip {
                None => listener.client_ip = Some(wanted.clone()),
                Some(known) if *known == wanted => {}
                Some(_) => listener.client_ip = Some(None),
            }
        }
    }

    /// Writes the entrypoints, when all servers are known.
    pub(super) fn write_listeners(&mut self) {
        let listeners = std::mem::take(&mut self.listeners.known);
        let mut lists: Vec<(Vec<String>, String)> = Vec::new();
        for listener in listeners.into_values() {
            let section = self.draft.add(Kind::Entrypoint, &listener.name, &listener.place);
            for bind in &listener.bind {
                self.draft.push(section, "bind", bind.to_string());
            }
            if let Some(Some((header, from))) = listener.client_ip {
                let list = match lists.iter().find(|(known, _)| *known == from) {
                    Some((_, name)) => name.clone(),
                    None => {
                        let list = self.draft.add(Kind::Allowlist, "proxies", &listener.place);
                        self.draft.set(list, "prefixes", guard::strings(&from));
                        let name = self.draft.sections[list].name.clone();
                        lists.push((from, name.clone()));
                        name
                    }
                };
                let trust = Value::Array(vec![list.into()]);
                self.draft.set(section, "client_ip", table_of([("header", header.into()), ("trust", trust)]));
            }
            if listener.tls {
                let mut tls = table_of([("certificates", guard::strings(&listener.certificates))]);
                if let Some(ca) = listener.client_ca {
                    tls.insert("client_ca".into(), ca.into());
                }
                self.draft.set(section, "tls", tls);
                if listener.http3 {
                    self.draft.set(section, "http3", true);
                }
            }
        }
    }
}

/// Those of a server; nginx listens on port 80 without any.
fn listens<'a>(scope: &Scope<'a>) -> Vec<&'a Directive> {
    scope.own().iter().filter(|directive| directive.name == "listen").collect()
}

fn key(address: SocketAddr) -> Key {
    (address.port(), (!address.ip().is_unspecified()).then_some(address.ip()))
}

fn name_of(address: SocketAddr) -> String {
    let port = match address.port() {
        80 => "http".to_owned(),
        443 => "https".to_owned(),
        other => format!("port-{other}"),
    };
    if address.ip().is_unspecified() {
        port
    } else {
        crate::import::draft::plain_name(&format!("{port}-{}", address.ip()))
    }
}
