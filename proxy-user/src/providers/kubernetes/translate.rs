//! A cluster → documents. Pure: the same objects give the same texts.
//!
//! Each object becomes a document of its own, `ingress/shop/web` or `service/shop/web`, so that a fault is its own. What is
//! wrong with it, or can't be done, is told beside it.

use std::collections::BTreeSet;

use super::{
    backends::{Backends, document},
    cluster::{Cluster, Key, Kind, Known},
    gateway, http_route, ingress, tls_route,
};
use crate::{config::model::Kubernetes, providers::composed::Composed};

/// What a cluster comes to.
#[derive(Debug, Default)]
pub struct Translated {
    pub composed: Composed,
    /// The Secrets that somebody wants to be served with, and who that is (the name of its document).
    pub secrets: BTreeSet<(Key, String)>,
}

#[must_use]
pub fn translate(provider: &str, cluster: &Cluster, terms: &Kubernetes) -> Translated {
    let mut translated = Translated::default();
    let Translated { composed, secrets } = &mut translated;
    let mut backends = Backends::new(provider, cluster, terms.external_names);

    // 1. Ingresses of our class.
    for (key, ingress) in readable(Kind::Ingress, &cluster.ingresses, composed) {
        if !terms.ingress_class.as_ref().is_some_and(|class| ingress::is_ours(ingress, class)) {
            continue;
        }
        ingress::translate(key, ingress, terms, &mut backends, composed);
        for name in ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
            secrets.insert((Key::new(&key.namespace, name), document(Kind::Ingress, key)));
        }
    }

    // 2. Gateways of our class, and the routes that come in there.
    let doors = gateway::doors(cluster, terms, composed);
    for door in &doors {
        let wanted = gateway::secrets(door, composed);
        secrets.extend(wanted.into_iter().map(|key| (key, document(Kind::Gateway, door.gateway))));
    }
    let is_ours = |class: &str| terms.gateway_class.as_deref() == Some(class);
    let ours: BTreeSet<_> = cluster
        .gateways
        .iter()
        .filter(|(_, gateway)| {
            gateway.as_ref().is_ok_and(|gateway| is_ours(&gateway.spec.gateway_class_name))
        })
        .map(|(key, _)| key)
        .collect();
    for (key, route) in readable(Kind::HttpRoute, &cluster.http_routes, composed) {
        let (parents, hosts) = (&route.spec.parent_refs[..], &route.spec.hostnames[..]);
        let groups = gateway::groups(&doors, &ours, Kind::HttpRoute, key, parents, hosts, composed);
        if !groups.is_empty() {
            http_route::translate(key, route, &groups, &mut backends, composed);
        }
    }
    for (key, route) in readable(Kind::TlsRoute, &cluster.tls_routes, composed) {
        let (parents, hosts) = (&route.spec.parent_refs[..], &route.spec.hostnames[..]);
        let groups = gateway::groups(&doors, &ours, Kind::TlsRoute, key, parents, hosts, composed);
        if !groups.is_empty() {
            tls_route::translate(key, route, &groups, &mut backends, composed);
        }
    }

    // 3. The Services that these lead to.
    backends.write(composed);
    translated
}

/// Those that could be read; the others are told.
fn readable<'a, T>(kind: Kind, known: &'a Known<T>, composed: &mut Composed) -> Vec<(&'a Key, &'a T)> {
    let mut fine = Vec::new();
    for (key, object) in known {
        match object {
            Ok(object) => fine.push((key, object)),
            Err(why) => composed.fault(&document(kind, key), format!("can't be read: {why}")),
        }
    }
    fine
}
