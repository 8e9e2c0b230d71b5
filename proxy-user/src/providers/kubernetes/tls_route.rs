//! TLSRoute → passthrough by name: the connection is carried to a Service as it is, nothing of it is decrypted.

use toml::{Table, Value};

use super::{
    backends::{Backends, Way, document},
    cluster::{Key, Kind},
    gateway::Groups,
    http_route::weights,
    objects::{Object, TlsRouteSpec},
    words,
};
use crate::providers::composed::{self, Composed, Section};

pub fn translate(
    key: &Key,
    route: &Object<TlsRouteSpec>,
    groups: &Groups<'_>,
    backends: &mut Backends<'_>,
    composed: &mut Composed,
) {
    let document = document(Kind::TlsRoute, key);
    match words::of_route(&route.metadata.annotations, false) {
        Ok(said) if said.middleware.is_empty() => {}
        Ok(_) => {
            let why = "is left out: what isn't decrypted passes no middleware, which the annotation `weir/middleware` asks for";
            return composed.fault(&document, why);
        }
        Err(why) => return composed.fault(&document, format!("is left out: {why}")),
    }
    let Some(rule) = route.spec.rules.first() else { return };
    if route.spec.rules.len() > 1 {
        composed
            .fault(&document, "rules[1] and what follows is left out: the first rule takes all connections");
    }
    if let Some(field) = rule.rest.keys().next() {
        return composed.fault(&document, format!("rules[0] is left out: `{field}` is not supported"));
    }
    let mut told = Vec::new();
    let services = weights(key, &rule.backend_refs, Way::Passthrough, backends, &mut told);
    for why in told {
        composed.fault(&document, format!("rules[0]: {why}"));
    }
    let service = match services {
        Ok(services) if services.len() == 1 => services[0].0.clone(),
        Ok(services) => {
            let name = backends.name(key, &["tls-route"]);
            let split = services.into_iter().map(|(service, weight)| (service, Value::from(weight)));
            let section = Section::new(composed::Kind::Service, name.as_str());
            composed.add(&document, section.with("split", split.collect::<Table>()));
            name
        }
        Err(why) => {
            composed.fault(&document, format!("rules[0]: {why}; its connections are refused"));
            backends.nobody()
        }
    };
    for (gth, (entrypoints, hosts)) in groups.iter().enumerate() {
        if hosts.contains(&None) {
            composed.fault(
                &document,
                "it names no host, and neither does the listener: which connections it is for is not known",
            );
        }
        let names: Vec<_> = hosts.iter().flatten().cloned().collect();
        if names.is_empty() {
            continue;
        }
        let name = backends.name(key, &[&gth.to_string()]);
        let entrypoints: Vec<_> = entrypoints.iter().map(|name| Value::from(*name)).collect();
        let section = Section::new(composed::Kind::Route, name).with("passthrough", service.as_str());
        composed
            .add(&document, section.with("sni", names).with("entrypoint", entrypoints).made_of("rules[0]"));
    }
}
