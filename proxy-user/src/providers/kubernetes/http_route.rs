//! HTTPRoute → routes: one for each match of each rule, at all listeners that take it.
//!
//! A rule that can't be done as it says is not skipped, or its requests would go to a rule that was never meant for them:
//! where it is known which they are, they get a page; where it isn't, the match is left out. Both are told.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{
    backends::{Backends, Port, Way, document},
    cluster::{Key, Kind},
    filters::{self, Done},
    gateway::{Groups, Host},
    objects::{BackendReference, HttpMatch, HttpRouteSpec, HttpRule, Object, TypedField},
    words,
};
use crate::providers::composed::{Composed, Section};

/// The greatest weight that a split takes.
const HEAVIEST: u64 = 10_000;

/// What a rule's requests are asked for and where they go.
pub fn translate(
    key: &Key,
    route: &Object<HttpRouteSpec>,
    groups: &Groups<'_>,
    backends: &mut Backends<'_>,
    composed: &mut Composed,
) {
    let document = document(Kind::HttpRoute, key);
    let said = match words::of_route(&route.metadata.annotations, false) {
        Ok(said) => said,
        Err(why) => {
            return composed.fault(&document, format!("is left out: {why}, and may be what guards it"));
        }
    };
    // Of two the same the first counts.
    let mut taken = BTreeSet::new();
    let any = [HttpMatch::default()];
    for (nth, rule) in route.spec.rules.iter().enumerate() {
        let place = format!("rules[{nth}]");
        for field in rule.rest.keys() {
            composed.fault(&document, format!("{place}: `{field}` is not supported, and left out"));
        }
        let matches = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
        for (mth, asked) in matches.iter().enumerate() {
            let conditions = match conditions(asked) {
                Ok(conditions) => conditions,
                Err(why) => {
                    composed.fault(&document, format!("{place}.matches[{mth}] is left out: {why}"));
                    continue;
                }
            };
            for (gth, (entrypoints, hosts)) in groups.iter().enumerate() {
                for (hth, hosts) in alike(hosts).into_iter().enumerate() {
                    if !taken.insert((gth, hth, conditions.to_string())) {
                        continue;
                    }
                    let nth = [nth, mth, gth, hth].map(|number| number.to_string()).join("-");
                    let name = backends.name(key, &[&nth]);
                    let (section, told) = lead(key, rule, asked, &name, &hosts, backends);
                    for why in told {
                        composed.fault(&document, format!("{place}: {why}"));
                    }
                    let mut section = with(section, &conditions).made_of(place.as_str());
                    if !said.middleware.is_empty() {
                        let chain = said.middleware.iter().map(|name| Value::from(name.as_str()));
                        let own =
                            section.get("middleware").and_then(Value::as_array).cloned().unwrap_or_default();
                        section.set("middleware", chain.chain(own).collect::<Vec<_>>());
                    }
                    section.set(
                        "entrypoint",
                        entrypoints.iter().map(|name| Value::from(*name)).collect::<Vec<_>>(),
                    );
                    if !hosts.is_empty() {
                        section.set("host", hosts);
                    }
                    composed.add(&document, section);
                }
            }
        }
    }
}

/// Names together; any host by itself, which is an empty list.
fn alike(hosts: &BTreeSet<Host>) -> Vec<Vec<String>> {
    let named: Vec<_> = hosts.iter().flatten().cloned().collect();
    let any = hosts.contains(&None).then(Vec::new);
    any.into_iter().chain((!named.is_empty()).then_some(named)).collect()
}

/// Where a rule's requests go, and what of it is not done.
fn lead(
    key: &Key,
    rule: &HttpRule,
    asked: &HttpMatch,
    name: &str,
    hosts: &[String],
    backends: &mut Backends<'_>,
) -> (Section, Vec<String>) {
    let mut told = Vec::new();
    let refused = |why: String, backends: &mut Backends<'_>, mut told: Vec<String>| {
        told.push(format!("{why}; its requests get the page `maintenance`"));
        (Section::route(name, &backends.nobody()), told)
    };
    let Done { mut chain, redirects, mirror } = match filters::of(&rule.filters, asked, hosts) {
        Ok(done) => done,
        Err(why) => return refused(why, backends, told),
    };
    if let Some(timeout) = &rule.timeouts {
        if timeout.backend_request.is_some() {
            told.push("`timeouts.backendRequest` is not supported, and left out".to_owned());
        }
        match timeout.request.as_deref().map(filters::milliseconds) {
            None | Some(Ok(0)) => {}
            Some(Ok(most)) => {
                let total = Table::from_iter([("total".to_owned(), Value::from(format!("{most}ms")))]);
                chain.push(Table::from_iter([("timeouts".to_owned(), Value::from(total))]).into());
            }
            Some(Err(why)) => told.push(format!("`timeouts.request` {why}, and is left out")),
        }
    }
    let section = match redirects {
        true => Ok(Section::new(crate::providers::composed::Kind::Route, name)),
        false => to(key, &rule.backend_refs, Way::Http, name, backends, &mut told),
    };
    let mut section = match section {
        Ok(section) => section,
        Err(why) => return refused(why, backends, told),
    };
    if !chain.is_empty() {
        section.set("middleware", chain);
    }
    for (nth, mirror) in mirror.iter().enumerate() {
        match backend(key, &mirror.to, Way::Http, backends) {
            Ok(_) if nth > 0 => told.push("only one service gets copies, the others are left out".to_owned()),
            Ok(service) => {
                section.set("mirror.to", service);
                section.set("mirror.share", mirror.share.clone());
            }
            Err(why) => told.push(format!("no copies are sent: {why}")),
        }
    }
    (section, told)
}

/// A route to all of these by their weights.
fn to(
    key: &Key,
    references: &[BackendReference],
    way: Way,
    name: &str,
    backends: &mut Backends<'_>,
    told: &mut Vec<String>,
) -> Result<Section, String> {
    let weights = weights(key, references, way, backends, told)?;
    Ok(match &weights[..] {
        [(only, _)] => Section::route(name, only),
        _ => {
            let split = weights.into_iter().map(|(service, weight)| (service, Value::from(weight)));
            Section::new(crate::providers::composed::Kind::Route, name)
                .with("split", split.collect::<Table>())
        }
    })
}

/// Services and their weights, at least one. Who isn't there has nobody in its place, so that its share gets a page.
pub fn weights(
    key: &Key,
    references: &[BackendReference],
    way: Way,
    backends: &mut Backends<'_>,
    told: &mut Vec<String>,
) -> Result<Vec<(String, i64)>, String> {
    let mut weights: Vec<(String, u64)> = Vec::new();
    for (nth, reference) in references.iter().enumerate() {
        let service = match backend(key, reference, way, backends) {
            Ok(service) => service,
            // Without a weight it would get nothing anyhow.
            Err(why) if reference.weight == Some(0) => {
                told.push(format!("backendRefs[{nth}]: {why}"));
                continue;
            }
            Err(why) => {
                told.push(format!(
                    "backendRefs[{nth}]: {why}; its share of the requests gets the page `maintenance`"
                ));
                backends.nobody()
            }
        };
        let weight = u64::from(reference.weight.unwrap_or(1));
        match weights.iter_mut().find(|(known, _)| *known == service) {
            Some((_, sum)) => *sum += weight,
            None => weights.push((service, weight)),
        }
    }
    let most = weights.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if most == 0 {
        return Err("it has no backend with a weight".to_owned());
    }
    // Only their ratio counts; whoever has a weight keeps one.
    let scaled = |weight: u64| match most {
        most if most <= HEAVIEST || weight == 0 => weight,
        most => (weight * HEAVIEST / most).max(1),
    };
    Ok(weights
        .into_iter()
        .map(|(service, weight)| (service, i64::try_from(scaled(weight)).unwrap_or(1)))
        .collect())
}

fn backend(
    key: &Key,
    reference: &BackendReference,
    way: Way,
    backends: &mut Backends<'_>,
) -> Result<String, String> {
    let BackendReference { group, kind, namespace, name, port, filters, .. } = reference;
    let core = group.as_deref().is_none_or(str::is_empty);
    if !core || kind.as_deref().is_some_and(|kind| kind != "Service") {
        return Err(format!("`{name}` is no Service, and only those can be served"));
    }
    if namespace.as_ref().is_some_and(|namespace| *namespace != key.namespace) {
        return Err(format!("service `{name}` is in another namespace, and ReferenceGrants are not read"));
    }
    if !filters.is_empty() {
        return Err(format!("filters of a single backend are not supported (`{name}` has some)"));
    }
    let port = port.ok_or_else(|| format!("it says no port of service `{name}`"))?;
    backends.service(&Key::new(&key.namespace, name), &Port::Number(port), way)
}

/// What a match asks for, as a route says it.
fn conditions(asked: &HttpMatch) -> Result<Table, String> {
    if let Some(field) = asked.rest.keys().next() {
        return Err(format!("`{field}` is not supported"));
    }
    let mut conditions = Table::new();
    if let Some(path) = &asked.path {
        let value = path.value.as_deref().unwrap_or("/");
        let pattern = match path.r#type.as_deref().unwrap_or("PathPrefix") {
            "PathPrefix" => value.into(),
            "Exact" => Value::from(Table::from_iter([("exact".to_owned(), value.into())])),
            "RegularExpression" => Value::from(Table::from_iter([("regex".to_owned(), value.into())])),
            other => return Err(format!("the path's type {other} is not supported")),
        };
        conditions.insert("path".to_owned(), pattern);
    }
    if let Some(method) = &asked.method {
        conditions.insert("method".to_owned(), method.as_str().into());
    }
    for (key, fields) in [("header", &asked.headers), ("query", &asked.query_params)] {
        if !fields.is_empty() {
            conditions.insert(key.to_owned(), all_of(fields, key == "header")?.into());
        }
    }
    Ok(conditions)
}

fn all_of(fields: &[TypedField], any_case: bool) -> Result<Table, String> {
    let mut all = Table::new();
    for TypedField { r#type, name, value } in fields {
        let name = if any_case { name.to_ascii_lowercase() } else { name.clone() };
        // The first of a name counts, says the standard.
        if all.contains_key(&name) {
            continue;
        }
        let value = match r#type.as_deref().unwrap_or("Exact") {
            "Exact" => value.as_str().into(),
            "RegularExpression" => {
                Value::from(Table::from_iter([("regex".to_owned(), value.as_str().into())]))
            }
            other => return Err(format!("a match of type {other} is not supported")),
        };
        all.insert(name, value);
    }
    Ok(all)
}

fn with(mut section: Section, conditions: &Table) -> Section {
    for (key, value) in conditions {
        section.set(key, value.clone());
    }
    section
}
