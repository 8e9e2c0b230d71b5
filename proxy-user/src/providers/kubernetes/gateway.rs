//! Gateways: which of their listeners are entrypoints of this host, and which routes come in there.
//!
//! Nothing is bound for a Gateway. A listener is served where the provider names an entrypoint for its protocol and port.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    backends::document,
    cluster::{Cluster, Key, Kind},
    objects::{Listener, ParentReference, Reference},
};
use crate::{
    config::model::{Kubernetes, PortOf},
    providers::composed::Composed,
};

const GROUP: &str = "gateway.networking.k8s.io";

/// A listener that is served.
pub struct Door<'a> {
    pub gateway: &'a Key,
    pub listener: &'a Listener,
    /// The kind of routes that it takes.
    pub takes: Kind,
    pub entrypoints: Vec<&'a str>,
}

/// A name, or any.
pub type Host = Option<String>;

/// At which entrypoints which hosts come in. Groups of the same entrypoints, so that each host is in one route alone.
pub type Groups<'a> = BTreeMap<BTreeSet<&'a str>, BTreeSet<Host>>;

/// All listeners of our Gateways that can be served; the others are told.
pub fn doors<'a>(cluster: &'a Cluster, terms: &'a Kubernetes, composed: &mut Composed) -> Vec<Door<'a>> {
    let mut doors = Vec::new();
    let Some(class) = &terms.gateway_class else { return doors };
    for (key, gateway) in &cluster.gateways {
        let gateway = match gateway {
            Ok(gateway) if gateway.spec.gateway_class_name == **class => gateway,
            Ok(_) => continue,
            Err(why) => {
                composed.fault(&document(Kind::Gateway, key), format!("can't be read: {why}"));
                continue;
            }
        };
        for listener in &gateway.spec.listeners {
            match door(key, listener, terms) {
                Ok(door) => doors.push(door),
                Err(why) => {
                    let why = format!("listener `{}` is not served: {why}", listener.name);
                    composed.fault(&document(Kind::Gateway, key), why);
                }
            }
        }
    }
    doors
}

fn door<'a>(gateway: &'a Key, listener: &'a Listener, terms: &'a Kubernetes) -> Result<Door<'a>, String> {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    if let Some(field) = listener.tls.as_ref().and_then(|tls| tls.rest.keys().next()) {
        return Err(format!("`tls.{field}` is not supported"));
    }
    let (takes, key, ports) = match (&*listener.protocol, mode) {
        ("HTTP", _) => (Kind::HttpRoute, "http", &terms.http),
        ("HTTPS", "Terminate") => (Kind::HttpRoute, "https", &terms.https),
        ("TLS", "Passthrough") => (Kind::TlsRoute, "passthrough", &terms.passthrough),
        ("TLS" | "HTTPS", mode) => {
            return Err(format!("protocol {} with `tls.mode` {mode} is not supported", listener.protocol));
        }
        (other, _) => return Err(format!("protocol {other} is not supported")),
    };
    let here = |port: &&PortOf| port.port == listener.port;
    let entrypoints: Vec<_> = ports.iter().filter(here).map(|port| &*port.entrypoint).collect();
    if entrypoints.is_empty() {
        return Err(format!("no entrypoint: `{key}` of the provider names none for port {}", listener.port));
    }
    if let Some(allowed) = &listener.allowed_routes {
        match allowed.namespaces.as_ref().and_then(|namespaces| namespaces.from.as_deref()) {
            None | Some("Same" | "All" | "None") => {}
            Some(other) => return Err(format!("`allowedRoutes.namespaces.from` {other} is not supported")),
        }
    }
    Ok(Door { gateway, listener, takes, entrypoints })
}

impl Door<'_> {
    /// Whether routes of this kind and namespace may come in here.
    fn admits(&self, kind: Kind, namespace: &str) -> bool {
        let word = if kind == Kind::HttpRoute { "HTTPRoute" } else { "TLSRoute" };
        let allowed = self.listener.allowed_routes.as_ref();
        let from = allowed.and_then(|one| one.namespaces.as_ref()?.from.as_deref()).unwrap_or("Same");
        let kinds = allowed.map(|one| one.kinds.as_slice()).unwrap_or_default();
        let named = |one: &super::objects::RouteKind| one.kind == word && of_group(one.group.as_deref());
        self.takes == kind
            && (kinds.is_empty() || kinds.iter().any(named))
            && match from {
                "All" => true,
                "Same" => self.gateway.namespace == namespace,
                _ => false,
            }
    }
}

/// Whether the group is Gateway API's, which it is where nothing is said.
fn of_group(group: Option<&str>) -> bool {
    group.is_none_or(|group| group == GROUP)
}

/// Where a route comes in, of all that it names as its parents. What of that is ours and can't be is told.
pub fn groups<'a>(
    doors: &'a [Door<'_>],
    ours: &BTreeSet<&Key>,
    kind: Kind,
    key: &Key,
    parents: &[ParentReference],
    hostnames: &[String],
    composed: &mut Composed,
) -> Groups<'a> {
    let mut by_host = BTreeMap::<Host, BTreeSet<&str>>::new();
    for parent in parents {
        let is_gateway = parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        let gateway = Key::new(parent.namespace.as_deref().unwrap_or(&key.namespace), &parent.name);
        // Somebody else's business.
        if !is_gateway || !of_group(parent.group.as_deref()) || !ours.contains(&gateway) {
            continue;
        }
        let meant = |door: &&Door<'_>| {
            *door.gateway == gateway
                && parent.section_name.as_ref().is_none_or(|name| *name == door.listener.name)
                && parent.port.is_none_or(|port| port == door.listener.port)
                && door.admits(kind, &key.namespace)
        };
        let mut fits = false;
        for door in doors.iter().filter(meant) {
            for host in shared(door.listener.hostname.as_deref(), hostnames) {
                fits = true;
                by_host.entry(host).or_default().extend(&door.entrypoints);
            }
        }
        if !fits {
            let section = parent.section_name.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
            let why = format!(
                "no listener{section} of gateway `{gateway}` takes it: none is served that allows its namespace and kind and \
                 has a host of its own"
            );
            // Told beside the route's own document, whose last good version would stay in force otherwise: whoever isn't let
            // in any more must not come in.
            composed.fault(&format!("{} (parentRefs)", document(kind, key)), why);
        }
    }
    let mut groups = Groups::new();
    for (host, entrypoints) in by_host {
        groups.entry(entrypoints).or_default().insert(host);
    }
    groups
}

/// The hosts that a listener and a route have in common.
fn shared(listener: Option<&str>, route: &[String]) -> BTreeSet<Host> {
    let listener = listener.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
    if route.is_empty() {
        return [listener].into();
    }
    let Some(listener) = listener else {
        return route.iter().map(|host| Some(host.to_ascii_lowercase())).collect();
    };
    let common = |host: &String| {
        let host = host.to_ascii_lowercase();
        if covers(&listener, &host) {
            Some(Some(host))
        } else if covers(&host, &listener) {
            Some(Some(listener.clone()))
        } else {
            None
        }
    };
    route.iter().filter_map(common).collect()
}

/// Whether all of `other` is of `name`: itself, or below its star.
pub fn covers(name: &str, other: &str) -> bool {
    name == other
        || name.strip_prefix('*').is_some_and(|rest| other.ends_with(rest) && other.len() > rest.len())
}

/// The Secrets that a Gateway's listeners name. They stand in its own namespace, or somebody would have to allow it.
pub fn secrets(door: &Door<'_>, composed: &mut Composed) -> Vec<Key> {
    let mut secrets = Vec::new();
    if door.listener.protocol != "HTTPS" {
        return secrets;
    }
    for reference in door.listener.tls.iter().flat_map(|tls| &tls.certificate_refs) {
        let Reference { group, kind, namespace, name } = reference;
        let namespace = namespace.as_deref().unwrap_or(&door.gateway.namespace);
        if group.as_deref().is_some_and(|group| !group.is_empty())
            || kind.as_deref().is_some_and(|kind| kind != "Secret")
        {
            let why = format!("listener `{}`: certificate `{name}` is no Secret", door.listener.name);
            composed.fault(&document(Kind::Gateway, door.gateway), why);
        } else if namespace != door.gateway.namespace {
            let why = format!(
                "listener `{}`: the certificate is in another namespace, `{namespace}`, and ReferenceGrants are not read",
                door.listener.name
            );
            composed.fault(&document(Kind::Gateway, door.gateway), why);
        } else {
            secrets.push(Key::new(namespace, name));
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_the_hosts_that_it_shares_with_the_listener() {
        let case = |listener: &str, route: &[&str]| -> Vec<String> {
            let route: Vec<_> = route.iter().map(|host| (*host).to_owned()).collect();
            let all = shared(Some(listener), &route);
            all.into_iter().map(|host| host.unwrap_or_else(|| "any".to_owned())).collect()
        };
        assert_eq!(case("", &[]), ["any"]);
        assert_eq!(case("", &["A.example"]), ["a.example"]);
        assert_eq!(case("a.example", &[]), ["a.example"]);
        assert_eq!(case("*.example", &["a.example", "b.other"]), ["a.example"]);
        assert_eq!(case("a.b.example", &["*.example"]), ["a.b.example"]);
        assert_eq!(case("*.b.example", &["*.example", "example"]), ["*.b.example"]);
        assert!(case("*.example", &["example", "xexample"]).is_empty());
    }
}
