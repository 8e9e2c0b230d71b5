//! Which way a request would take, and why: what `weir explain URL` tells. Worked out from a configuration, by the same
//! router, the same judge of heads and the same rewriting that requests meet. Pure.

mod balance;
pub mod parts;
pub mod pages;

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, request};
use serde::{Deserialize, Serialize};

use crate::{
    config::model::{
        Condition, Config, Entrypoint, EntrypointId, HostMatch, MiddlewareKind, PathMatch, Route,
    },
    glance::Glance,
    https, hygiene,
    middleware::{paths, redirect},
    routing::{
        Router, canonical,
        rule::{Asked, Rule, Test},
    },
    snapshot,
};

/// So many routes that nearly took the request are told.
const NEARBY: usize = 5;

/// What is asked. Serialized, it is what the admin API takes.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `https://app.example.com/x?y`
    pub url: String,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Without it, nobody in particular: 0.0.0.0.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub client: Option<IpAddr>,
    /// Without it, those that the URL's scheme and port lead to.
    #[serde(default)]
    pub entrypoint: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// Of the configuration that was asked; `None`: of one that doesn't run.
    pub generation: Option<u64>,
    /// At each entrypoint where the request may come in.
    pub ways: Vec<Way>,
}

/// The way of the request at one entrypoint.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Way {
    pub entrypoint: String,
    /// The route that takes it, and what it asks for.
    pub route: Option<String>,
    pub because: Vec<String>,
    /// In the order in which the request passes.
    pub middleware: Vec<Stop>,
    /// What Weir answers itself, where it is known to.
    pub answer: Option<String>,
    /// The page that stands in the servers' place now, and why.
    #[serde(default)]
    pub page: Option<String>,
    pub service: Option<String>,
    pub servers: Vec<String>,
    /// How the service chooses among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// What the service is made of, where that is not servers.
    #[serde(default)]
    pub parts: Vec<parts::Part>,
    /// The target that a server is asked for, after rewriting.
    pub target: Option<String>,
    /// Those that nearly took it, the nearest first.
    pub others: Vec<Other>,
}

/// A middleware on the way.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Stop {
    pub name: String,
    pub kind: String,
    /// What it does to this request, where that can be told beforehand.
    pub does: Option<String>,
}

/// Another route, and why it isn't taken.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Other {
    pub route: String,
    pub why: Vec<String>,
}

/// What the routes of `config` make of the request.
///
/// # Errors
/// A sentence about what is wrong with the question.
pub fn explain(config: &Config, generation: Option<u64>, question: &Question) -> Result<Explanation, String> {
    let asked = Parsed::new(question)?;
    let entrypoints = entrypoints(config, question, &asked)?;
    let ways = entrypoints.into_iter().map(|id| way(config, id, &asked)).collect();
    Ok(Explanation { generation, ways })
}

/// A question that makes sense.
struct Parsed {
    scheme: String,
    port: u16,
    head: request::Parts,
    client: IpAddr,
}

impl Parsed {
    fn new(question: &Question) -> Result<Self, String> {
        let url = &question.url;
        let uri: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("`{url}` is not a URL of a site: `https://app.example.com/path`"));
        };
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::from_bytes(question.method.as_bytes())
            .map_err(|_| format!("`{}` is not a method", question.method))?;
        for (name, value) in &question.headers {
            let field = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
            let (name, value) = field.ok_or_else(|| format!("`{name}: {value}` is not a header field"))?;
            head.headers.append(name, value);
        }
        if !head.headers.contains_key(http::header::HOST) {
            let host = HeaderValue::from_str(authority.as_str());
            head.headers
                .insert(http::header::HOST, host.map_err(|_| format!("`{authority}` is not a host"))?);
        }
        head.uri = uri.path_and_query().map_or(Uri::from_static("/"), |target| Uri::from(target.clone()));
        let client = question.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Self { scheme: scheme.to_owned(), port, head, client })
    }
}

fn entrypoints(config: &Config, question: &Question, asked: &Parsed) -> Result<Vec<EntrypointId>, String> {
    let all = || config.entrypoints.iter().enumerate();
    let some = |fits: &dyn Fn(&Entrypoint) -> bool| -> Vec<_> {
        all().filter(|(_, entrypoint)| fits(entrypoint)).map(|(id, _)| EntrypointId(id)).collect()
    };
    if let Some(name) = &question.entrypoint {
        let named = some(&|entrypoint| *entrypoint.name == **name);
        if named.is_empty() {
            let names: Vec<_> = all().map(|(_, entrypoint)| &*entrypoint.name).collect();
            return Err(format!("there is no entrypoint `{name}`, but {}", names.join(", ")));
        }
        return Ok(named);
    }
    let secure = asked.scheme == "https";
    let at_port = some(&|entrypoint| {
        entrypoint.tls.is_some() == secure && entrypoint.bind.iter().any(|bind| bind.port() == asked.port)
    });
    // Behind a port that is translated, or for a question that doesn't bother.
    Ok(if at_port.is_empty() { some(&|entrypoint| entrypoint.tls.is_some() == secure) } else { at_port })
}

fn way(config: &Config, id: EntrypointId, question: &Parsed) -> Way {
    let entrypoint = &config.entrypoints[id.0];
    let mut way = Way {
        entrypoint: entrypoint.name.to_string(),
        route: None,
        because: Vec::new(),
        middleware: Vec::new(),
        answer: None,
        page: None,
        service: None,
        servers: Vec::new(),
        balance: None,
        parts: Vec::new(),
        target: None,
        others: Vec::new(),
    };
    let judged = match hygiene::judge(&question.head, &Glance::over(&question.head.headers)) {
        Ok(judged) => judged,
        Err(fault) => {
            way.answer = Some(format!("{}: refused for its {}", fault.status(), fault.name()));
            return way;
        }
    };
    let host = judged.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let uri = &question.head.uri;
    if let Some(redirect) = &entrypoint.redirect
        && let Some(to) = https::onward(redirect, &host, uri)
    {
        let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
        way.answer = Some(format!("{} to {to}, by the entrypoint", redirect.status));
        return way;
    }
    let path = judged.path.as_deref().unwrap_or(uri.path());
    let asked = Asked {
        host: &host,
        path,
        query: uri.query(),
        method: &question.head.method,
        headers: &question.head.headers,
        client: question.client,
    };
    let here = |route: &&Route| route.entrypoints.is_empty() || route.entrypoints.contains(&id);
    let router = Router::new(
        config.routes.iter().filter(here).flat_map(|route| snapshot::rules(config, route, route)),
    );
    let taken = router.find(&asked).copied();
    if let Some(route) = taken {
        way.route = Some(route.name.to_string());
        way.because = conditions(route);
        follow(config, entrypoint, route, question, path, &host, &mut way);
    } else {
        way.answer = Some("404 Not Found: no route matches".to_owned());
    }
    way.others = others(&router, &asked, taken);
    way
}

/// What a route asks for.
fn conditions(route: &Route) -> Vec<String> {
    let hosts = route.hosts.iter().filter(|host| **host != HostMatch::Any).map(ToString::to_string);
    let hosts: Vec<_> = hosts.collect();
    let mut all = Vec::new();
    if !hosts.is_empty() {
        all.push(format!("host {}", hosts.join(" or ")));
    }
    if route.path != PathMatch::Prefix("/".into()) {
        all.push(format!("path {}", route.path));
    }
    all.extend(route.when.iter().map(ToString::to_string));
    all.extend(route.not.iter().map(|condition| format!("not {condition}")));
    if route.priority != 0 {
        all.push(format!("priority {}", route.priority));
    }
    all
}

/// Goes through the chain as far as it can be told beforehand.
fn follow(
    config: &Config,
    entrypoint: &Entrypoint,
    route: &Route,
    question: &Parsed,
    path: &str,
    host: &str,
    way: &mut Way,
) {
    let mut uri = question.head.uri.clone();
    for id in entrypoint.middleware.iter().chain(&route.middleware) {
        let one = &config.middleware[id.0];
        let before = if uri == question.head.uri { path.to_owned() } else { uri.path().to_owned() };
        let mut does = None;
        if let Some(new) = paths::rewritten(&one.kind, &before) {
            does = Some(format!("{before} → {new}"));
            if let Some(target) = paths::with_path(&uri, &new) {
                uri = Uri::from(target);
            }
        } else if let Some(location) = redirect::explained(&one.kind, &question.scheme, host, &uri) {
            let MiddlewareKind::Redirect(redirect) = &one.kind else { continue };
            does = Some(format!("{} to {location}", redirect.status));
            way.answer.clone_from(&does);
        } else if let MiddlewareKind::Clients { allow, deny } = &one.kind {
            let within = |networks: &[_]| snapshot::networks_of(config, networks).contains(question.client);
            if allow.as_deref().is_some_and(|allow| !within(allow)) || within(deny) {
                does = Some(format!("403 Forbidden for {}", question.client));
                way.answer.clone_from(&does);
            }
        }
        way.middleware.push(Stop { name: one.name.to_string(), kind: one.kind.key().to_owned(), does });
        if way.answer.is_some() {
            return;
        }
    }
    match route.service {
        Some(id) => {
            let service = &config.services[id.0];
            way.parts = parts::of(config, id, 0);
            way.service = Some(service.name.to_string());
            way.servers = service.servers.iter().map(ToString::to_string).collect();
            way.balance = service.made_of.is_none().then(|| balance::told(service, question, &uri));
            way.target = uri.path_and_query().map(ToString::to_string);
        }
        None => way.answer = Some("404 Not Found: the route only redirects, and this it does not".to_owned()),
    }
}

/// The routes that were nearest to taking the request.
fn others(router: &Router<&Route>, asked: &Asked<'_>, taken: Option<&Route>) -> Vec<Other> {
    let host = canonical(asked.host);
    let asked = asked.at(&host);
    let mut misses: Vec<(usize, bool, &Rule<&Route>, Vec<String>)> = router
        .rules()
        .iter()
        .filter(|rule| taken.is_none_or(|taken| !std::ptr::eq(taken, rule.target)))
        .map(|rule| {
            let why = failed(rule, &asked);
            (why.len(), !rule.host.matches(asked.host), rule, why)
        })
        .collect();
    // A stable sort: among equally near ones their own order stays.
    misses.sort_by_key(|(failed, elsewhere, ..)| (*elsewhere, *failed));
    let mut others: Vec<Other> = Vec::new();
    for (_, elsewhere, rule, mut why) in misses {
        let route = rule.target.name.to_string();
        // Routes of wholly other hosts have nothing to do with it, and another host of a route says nothing new.
        if others.len() == NEARBY || elsewhere && why.len() > 1 || others.iter().any(|one| one.route == route)
        {
            continue;
        }
        if why.is_empty() {
            why.push("matches too, but goes later".to_owned());
        }
        others.push(Other { route, why });
    }
    others
}

/// What a request lacks for a rule.
fn failed(rule: &Rule<&Route>, asked: &Asked<'_>) -> Vec<String> {
    let mut failed = Vec::new();
    if !rule.host.matches(asked.host) {
        failed.push(format!("is for host {}, not {}", rule.host, asked.host));
    }
    if !rule.path.matches(asked.path) {
        failed.push(format!("is for path {}, not {}", rule.path, asked.path));
    }
    let lacks = |test: &&Test| !test.holds(asked);
    failed.extend(rule.when.iter().filter(lacks).map(|test| lacking(&test.condition, asked)));
    let excluded = rule.not.iter().filter(|test| test.holds(asked));
    failed.extend(excluded.map(|test| format!("is not for {}", test.condition)));
    failed
}

fn lacking(condition: &Condition, asked: &Asked<'_>) -> String {
    let given = |headers: &HeaderMap, name: &HeaderName| {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() { "there is none".to_owned() } else { format!("it is {}", values.join(" and ")) }
    };
    match condition {
        Condition::Method(_) => format!("wants {condition}, not {}", asked.method),
        Condition::Header(name, _) => format!("wants {condition}; {}", given(asked.headers, name)),
        Condition::Client(_) => format!("wants another client than {}", asked.client),
        _ => format!("wants {condition}"),
    }
}

#[cfg(test)]
mod tests;
