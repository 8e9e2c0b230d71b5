//! Annotations in Weir's words: `weir/KEY`, where KEY is one of the configuration language's.

use std::collections::BTreeMap;

use toml::Value;

use crate::providers::composed::Section;

/// What is Weir's among annotations begins so.
const PREFIX: &str = "weir/";

/// Keys of `[service.NAME]` that a Service may set. None of them names a file.
const OF_SERVICE: &[&str] = &[
    "balance",
    "hash_by",
    "health.every",
    "health.fall",
    "health.host",
    "health.path",
    "health.rise",
    "health.timeout",
    "protocol",
    "slow_start",
    "sticky",
    "timeouts.connect",
    "timeouts.first_byte",
    "tls.insecure",
    "tls.server_name",
    "when_all_down",
];

/// What an Ingress or a route may say beside what its kind can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfRoute {
    /// Names of `[middleware.NAME]`, passed before anything else.
    pub middleware: Vec<String>,
    /// Whether hosts with TLS are served over TLS alone, and asked for it elsewhere. Of an Ingress.
    pub https_redirect: bool,
}

/// Sets what the annotations of a Service say. Gives back what could not be set, each the end of a sentence.
pub fn of_service(annotations: &BTreeMap<String, String>, section: &mut Section) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, text) in annotations {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        if !OF_SERVICE.contains(&key) {
            faults.push(format!("the annotation `{name}` is none that a Service may have"));
            continue;
        }
        section.set_by(key, value(text), format!("annotation `{name}`"));
    }
    faults
}

/// What the annotations of an Ingress or a route say.
///
/// # Errors
/// A sentence about one that isn't understood. It may be what guards the route, so that nothing may be served without it.
pub fn of_route(annotations: &BTreeMap<String, String>, ingress: bool) -> Result<OfRoute, String> {
    let mut said = OfRoute { middleware: Vec::new(), https_redirect: true };
    for (name, text) in annotations {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        match (key, text.trim()) {
            ("middleware", text) => {
                said.middleware = text.split(',').map(|name| name.trim().to_owned()).collect();
            }
            ("https_redirect", "true") if ingress => said.https_redirect = true,
            ("https_redirect", "false") if ingress => said.https_redirect = false,
            ("https_redirect", other) if ingress => {
                return Err(format!("the annotation `{name}` is {other:?}, neither `true` nor `false`"));
            }
            _ => return Err(format!("the annotation `{name}` is none that it may have")),
        }
    }
    Ok(said)
}

/// Numbers and booleans are none in annotations.
fn value(text: &str) -> Value {
    let text = text.trim();
    match (text.parse::<i64>(), text.parse::<bool>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(truth)) => truth.into(),
        _ => text.into(),
    }
}
