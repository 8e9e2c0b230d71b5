//! Middlewares. One that keeps people out and isn't understood holds back the entrypoints of whoever uses it.

use std::time::Duration;

use toml::Value;

use super::{Node, Traefik, changes, plain};
use crate::import::{
    Place, convert,
    draft::{Kind, table_of},
};

const DEEPEST_CHAIN: usize = 4;

/// What has become of one of Traefik's.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// The names of Weir's.
    Chain(Vec<String>),
    /// Left out, and nobody gets further than before.
    Harmless,
    Guard {
        place: Place,
        what: String,
        why: String,
    },
    Missing,
}

/// Those that decide who may pass, or by which path servers are asked.
const GUARDS: &[&str] = &[
    "basicauth",
    "digestauth",
    "forwardauth",
    "inflightreq",
    "ipallowlist",
    "ipwhitelist",
    "plugin",
    "ratelimit",
];

impl<'a> Traefik<'a> {
    pub(super) fn middleware(&mut self, name: &str, depth: usize) -> Made {
        let Some((name, node)) = self.one(&["http", "middlewares"], name) else { return Made::Missing };
        if let Some(known) = self.middleware.get(name) {
            return known.clone();
        }
        let made = self.make(name, node, depth);
        self.middleware.insert(name, made.clone());
        made
    }

    fn make(&mut self, name: &'a str, node: &'a Node, depth: usize) -> Made {
        let Some((kind, body)) = node.entries().first() else { return Made::Harmless };
        let kind = kind.to_ascii_lowercase();
        if kind == "chain" {
            let mut all = Vec::new();
            for part in body.texts_of("middlewares") {
                if depth >= DEEPEST_CHAIN {
                    return Made::Guard {
                        place: body.place.clone(),
                        what: name.to_owned(),
                        why: "chains are nested too deeply".into(),
                    };
                }
                match self.middleware(plain(part), depth + 1) {
                    Made::Chain(several) => all.extend(several),
                    Made::Harmless => {}
                    other => return other,
                }
            }
            return Made::Chain(all);
        }
        let what = format!("middleware {name} ({kind})");
        match self.body(&kind, body) {
            Ok(Some((key, value))) => {
                let section = self.draft.add(Kind::Middleware, name, &body.place);
                self.draft.set(section, key, value);
                Made::Chain(vec![self.draft.sections[section].name.clone()])
            }
            Ok(None) => Made::Harmless,
            Err(why) if GUARDS.contains(&kind.as_str()) => {
                Made::Guard { place: body.place.clone(), what, why: why.to_owned() }
            }
            Err(why) => {
                self.draft.leave(&body.place, &what, why);
                Made::Harmless
            }
        }
    }

    fn body(&mut self, kind: &str, body: &'a Node) -> Result<Option<(&'static str, Value)>, &'static str> {
        let list = |key: &str| -> Value {
            body.texts_of(key).into_iter().map(Value::from).collect::<Vec<_>>().into()
        };
        Ok(Some(match kind {
            "addprefix" => ("add_path", body.text_of("prefix").ok_or("it names no prefix")?.into()),
            "stripprefix" => ("strip_path", list("prefixes")),
            "replacepath" => {
                let to = body.text_of("path").ok_or("it names no path")?;
                (
                    "replace_path",
                    table_of([("regex", ".*".into()), ("to", to.replace('$', "$$").into())]).into(),
                )
            }
            "replacepathregex" => {
                let (regex, to) = (body.text_of("regex"), body.text_of("replacement"));
                let (Some(regex), Some(to)) = (regex, to) else { return Err("it has no pattern") };
                if !(regex.starts_with('^') && regex.ends_with('$')) {
                    return Err("a pattern must match the whole path here");
                }
                let regex = regex.trim_start_matches('^').trim_end_matches('$');
                ("replace_path", table_of([("regex", regex.into()), ("to", to.into())]).into())
            }
            "redirectscheme" => {
                let status = if body.is_true("permanent") { 301 } else { 302 };
                let scheme = body.text_of("scheme").unwrap_or("https");
                let table = table_of([("scheme", scheme.into()), ("status", status.into())]);
                if body.text_of("port").is_some_and(|port| !matches!(port, "443" | "80")) {
                    return Err(
                        "it redirects to another port: `redirect = { host = \"name:port\" }` does it",
                    );
                }
                ("redirect", table.into())
            }
            "redirectregex" => {
                return Err("its pattern is of a whole URL; `redirect` has host, scheme and path apart");
            }
            "headers" => match self.headers(body) {
                Some(headers) => ("headers", headers.into()),
                None => return Ok(None),
            },
            "basicauth" => {
                let mut basic = toml::Table::new();
                let users = body.texts_of("users");
                if users.iter().any(|user| {
                    !user
                        .split_once(':')
                        .is_some_and(|(_, hash)| hash.starts_with("$2") || hash.starts_with("$argon2"))
                }) {
                    return Err(
                        "passwords are kept as bcrypt or Argon2 here: `weir hash-password` makes one",
                    );
                }
                if !users.is_empty() {
                    basic.insert("users".into(), list("users"));
                }
                for (key, from) in [("file", "usersFile"), ("realm", "realm"), ("user_header", "headerField")]
                {
                    if let Some(text) = body.text_of(from) {
                        basic.insert(key.into(), text.into());
                    }
                }
                if !body.is_true("removeHeader") {
                    basic.insert("pass_on".into(), true.into());
                }
                ("basic_auth", basic.into())
            }
            "forwardauth" => {
                let (tls, server, path) =
                    body.text_of("address").and_then(convert::url).ok_or("it names no address")?;
                if tls {
                    return Err(
                        "write a service with `tls` for it, and `forward_auth = { service = \"…\" }`",
                    );
                }
                let section = self.draft.add(Kind::Service, convert::host_of(&server), &body.place);
                self.draft.push(section, "servers", server);
                let service = self.draft.sections[section].name.clone();
                let mut forward = table_of([("service", service.into())]);
                if !path.is_empty() {
                    forward.insert("path".into(), path.into());
                }
                if body.get("authResponseHeaders").is_some() {
                    forward.insert("copy".into(), list("authResponseHeaders"));
                }
                ("forward_auth", forward.into())
            }
            "ipallowlist" | "ipwhitelist" => {
                if body.get("ipStrategy").is_some() {
                    return Err("who the client is says the entrypoint's `client_ip`");
                }
                let allow: Option<Vec<Value>> = body
                    .texts_of("sourceRange")
                    .iter()
                    .map(|text| convert::prefix(text).map(Value::from))
                    .collect();
                let allow = allow.filter(|allow| !allow.is_empty()).ok_or("it has no prefixes")?;
                ("clients", table_of([("allow", allow.into())]).into())
            }
            "ratelimit" => ("rate_limit", rate(body)?.into()),
            "inflightreq" => {
                if body.get("sourceCriterion").is_some() {
                    return Err("`concurrency` counts all requests of a route together");
                }
                ("concurrency", body.number_of("amount").ok_or("it names no amount")?.into())
            }
            "buffering" => match body.number_of("maxRequestBodyBytes").filter(|most| *most > 0) {
                Some(most) => ("body_limit", format!("{most}B").into()),
                None => return Ok(None),
            },
            "compress" => ("compress", toml::Table::new().into()),
            "retry" => {
                return Err("Weir retries by itself where that is safe: `retry` of a service says how");
            }
            "circuitbreaker" => return Err("`breaker` of a service does it"),
            "errors" => return Err("`pages` of a route or service does it"),
            "digestauth" | "plugin" => return Err("it has no counterpart here"),
            _ => return Err("it has no counterpart here"),
        }))
    }

    fn headers(&mut self, body: &'a Node) -> Option<toml::Table> {
        let mut headers = toml::Table::new();
        let mut response = body.get("customResponseHeaders").map(changes).unwrap_or_default();
        let mut set = match response.remove("set") {
            Some(Value::Table(set)) => set,
            _ => toml::Table::new(),
        };
        if let Some(seconds) = body.number_of("stsSeconds").filter(|seconds| *seconds > 0) {
            let subdomains = if body.is_true("stsIncludeSubdomains") { "; includeSubDomains" } else { "" };
            let preload = if body.is_true("stsPreload") { "; preload" } else { "" };
            set.insert(
                "Strict-Transport-Security".into(),
                format!("max-age={seconds}{subdomains}{preload}").into(),
            );
        }
        for (key, name, value) in [
            ("frameDeny", "X-Frame-Options", "DENY"),
            ("contentTypeNosniff", "X-Content-Type-Options", "nosniff"),
            ("browserXssFilter", "X-XSS-Protection", "1; mode=block"),
        ] {
            if body.is_true(key) {
                set.insert(name.into(), value.into());
            }
        }
        for (key, name) in [
            ("customFrameOptionsValue", "X-Frame-Options"),
            ("contentSecurityPolicy", "Content-Security-Policy"),
            ("referrerPolicy", "Referrer-Policy"),
            ("permissionsPolicy", "Permissions-Policy"),
        ] {
            if let Some(value) = body.text_of(key).filter(|value| !value.contains(['{', '}'])) {
                set.insert(name.into(), value.into());
            }
        }
        if !set.is_empty() {
            response.insert("set".into(), set.into());
        }
        let request = body.get("customRequestHeaders").map(changes).unwrap_or_default();
        for (side, changes) in [("request", request), ("response", response)] {
            if !changes.is_empty() {
                headers.insert(side.into(), changes.into());
            }
        }
        for (key, node) in body.entries().iter().filter(|(key, _)| {
            key.starts_with("access") || key.starts_with("allowed") || key.starts_with("ssl")
        }) {
            self.draft.leave(&node.place, &format!("headers.{key}"), "it has no counterpart here");
        }
        (!headers.is_empty()).then_some(headers)
    }
}

/// So many in a period, as so many in a second, minute or hour.
fn rate(body: &Node) -> Result<toml::Table, &'static str> {
    if body.get("sourceCriterion").is_some() {
        return Err("whom it counts is written as `by`");
    }
    let average = body.number_of("average").filter(|average| *average > 0).ok_or("it has no average")?;
    let period = body
        .text_of("period")
        .map_or(Some(Duration::from_secs(1)), |text| convert::duration(text, Duration::from_secs(1)));
    let unit = match period.map(|period| period.as_millis()) {
        Some(1_000) => "s",
        Some(60_000) => "m",
        Some(3_600_000) => "h",
        _ => return Err("rates are per second, minute or hour here"),
    };
    let mut table = table_of([("rate", format!("{average}/{unit}").into())]);
    if let Some(burst) = body.number_of("burst") {
        table.insert("burst".into(), burst.max(1).into());
    }
    Ok(table)
}
