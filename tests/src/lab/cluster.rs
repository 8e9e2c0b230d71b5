//! An API server of Kubernetes, as far as a controller that only looks asks one: lists page by page, watches from a version
//! with bookmarks, and 410 for what it has forgotten. As <https://kubernetes.io/docs/reference/using-api/api-concepts/> has it;
//! no registry carries a real one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    namespace::Namespace,
    raw::{Raw, serve},
};

/// Who may ask.
pub const TOKEN: &str = "edge-t0ken";

/// Fewer than anybody asks for, so that there is always a next page.
const PAGE: usize = 2;

/// The server. What it has can be changed while it is asked.
#[derive(Debug, Default)]
pub struct Cluster {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// What happened, as watches tell it: version, plural, and the event.
    events: Vec<(u64, String, Value)>,
    /// Nothing is known of what happened up to here.
    forgotten: u64,
    away: bool,
    /// Grows when all watches are cut off.
    cuts: u64,
    /// Plurals that it doesn't know.
    absent: BTreeSet<String>,
    counts: Counts,
}

/// What it was asked, and what it had to say.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub lists: u32,
    pub watches: u32,
    pub gone: u32,
    pub refused: u32,
}

impl Cluster {
    /// Listens there. What is asked in a version of an API that it doesn't have is not found.
    pub fn open(namespace: &Namespace, at: &str) -> anyhow::Result<Arc<Self>> {
        let cluster = Arc::new(Self::default());
        let this = cluster.clone();
        serve(namespace, at, move |_, raw| this.answer(raw))?;
        Ok(cluster)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object, or replaces it.
    pub fn put(&self, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = key(&object);
        let plural = key.0.clone();
        let word = if state.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push((version, plural, json!({ "type": word, "object": object })));
        self.more.notify_all();
    }

    pub fn remove(&self, object: &Value) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        let key = key(object);
        let Some(mut object) = state.objects.remove(&key) else { return };
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.events.push((version, key.0, json!({ "type": "DELETED", "object": object })));
        self.more.notify_all();
    }

    /// Says nothing to anybody, until it is back.
    pub fn away(&self, away: bool) {
        let mut state = self.lock();
        state.away = away;
        state.cuts += 1;
        self.more.notify_all();
    }

    /// Cuts all watches off, and forgets what happened, with what is changed meanwhile.
    pub fn forget(&self, change: impl FnOnce(&Self)) {
        self.away(true);
        change(self);
        let mut state = self.lock();
        state.version += 1;
        state.forgotten = state.version;
        state.events.clear();
        drop(state);
        self.away(false);
    }

    /// A kind that isn't installed.
    pub fn without(&self, plural: &str) {
        self.lock().absent.insert(plural.to_owned());
    }

    pub fn install(&self, plural: &str) {
        self.lock().absent.remove(plural);
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn answer(&self, mut raw: Raw) -> anyhow::Result<()> {
        let head = raw.head()?;
        if self.lock().away {
            return Ok(());
        }
        if !head.contains(&format!("authorization: bearer {TOKEN}\r\n")) {
            self.lock().counts.refused += 1;
            return raw.say(failure(401, "Unauthorized", "Unauthorized"));
        }
        let target = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|one| one.split_once('=')).collect();
        let Some((plural, namespace)) = self.known(path) else {
            return raw.say(failure(404, "Not Found", "the server could not find the requested resource"));
        };
        if query.get("watch") == Some(&"true") {
            self.watch(&mut raw, &plural, namespace.as_deref(), &query)
        } else {
            raw.say(self.list(&plural, namespace.as_deref(), &query))
        }
    }

    fn known(&self, path: &str) -> Option<(String, Option<String>)> {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (root, rest) = match parts[..] {
            ["api", "v1", ref rest @ ..] => ("v1".to_owned(), rest),
            ["apis", group, version, ref rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, plural) = match rest {
            ["namespaces", namespace, plural] => (Some((*namespace).to_owned()), *plural),
            [plural] => (None, *plural),
            _ => return None,
        };
        let known = API.iter().any(|(version, _, known)| *version == root && *known == plural);
        (known && !self.lock().absent.contains(plural)).then(|| (plural.to_owned(), namespace))
    }

    fn list(&self, plural: &str, namespace: Option<&str>, query: &BTreeMap<&str, &str>) -> String {
        let mut state = self.lock();
        state.counts.lists += 1;
        let all: Vec<_> = state
            .objects
            .iter()
            .filter(|((of, at, _), object)| {
                of == plural && namespace.is_none_or(|namespace| at == namespace) && selected(object, query)
            })
            .map(|(_, object)| {
                // In a list they don't say what they are.
                let mut object = object.clone();
                object.as_object_mut().map(|fields| (fields.remove("kind"), fields.remove("apiVersion")));
                object
            })
            .collect();
        let begin: usize = query.get("continue").and_then(|token| token.parse().ok()).unwrap_or(0);
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX).min(PAGE);
        let items: Vec<_> = all.iter().skip(begin).take(limit).collect();
        let mut metadata = json!({ "resourceVersion": state.version.to_string() });
        if begin + items.len() < all.len() {
            metadata["continue"] = json!((begin + items.len()).to_string());
            metadata["remainingItemCount"] = json!(all.len() - begin - items.len());
        }
        let body = json!({ "kind": "List", "metadata": metadata, "items": items }).to_string();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn watch(
        &self,
        raw: &mut Raw,
        plural: &str,
        namespace: Option<&str>,
        query: &BTreeMap<&str, &str>,
    ) -> anyhow::Result<()> {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        let mut version = number("resourceversion").unwrap_or(0);
        let ends = Instant::now() + Duration::from_secs(number("timeoutseconds").unwrap_or(1800));
        raw.say("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut state = self.lock();
        state.counts.watches += 1;
        let cuts = state.cuts;
        if version < state.forgotten {
            state.counts.gone += 1;
            let message = format!("too old resource version: {version} ({})", state.forgotten);
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": message, "reason": "Expired", "code": 410,
            });
            drop(state);
            raw.say(chunk(&json!({ "type": "ERROR", "object": status })))?;
            return raw.say("0\r\n\r\n");
        }
        while Instant::now() < ends {
            let mut news = Vec::new();
            for (at, of, event) in &state.events {
                let object = &event["object"];
                let here = namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
                if *at > version && of == plural && here && selected(object, query) {
                    news.push(chunk(event));
                }
            }
            version = version.max(state.version);
            let kind = API.iter().find(|(_, _, known)| *known == plural).map(|(_, kind, _)| *kind);
            let bookmark = json!({
                "type": "BOOKMARK",
                "object": { "kind": kind, "metadata": { "resourceVersion": version.to_string(), "creationTimestamp": null } },
            });
            drop(state);
            // In two pieces, since lines don't come as they were sent.
            for piece in &news {
                let (one, two) = piece.split_at(piece.len() / 2);
                raw.say(one)?;
                raw.say(two)?;
            }
            if news.is_empty() {
                raw.say(chunk(&bookmark))?;
            }
            state = self.lock();
            if state.version == version && state.cuts == cuts {
                let wait = Duration::from_millis(500);
                state = self.more.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.cuts != cuts {
                return Ok(());
            }
        }
        drop(state);
        raw.say("0\r\n\r\n")
    }
}

/// What it has: version of the API, kind, plural.
const API: &[(&str, &str, &str)] = &[
    ("v1", "Service", "services"),
    ("v1", "Secret", "secrets"),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    ("networking.k8s.io/v1", "Ingress", "ingresses"),
    ("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
    // As it was before it became a standard.
    ("gateway.networking.k8s.io/v1alpha2", "TLSRoute", "tlsroutes"),
];

fn key(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let plural = API.iter().find(|(_, known, _)| *known == kind).map_or("", |(_, _, plural)| *plural);
    assert!(!plural.is_empty(), "the lab's cluster has no {kind}");
    (plural.to_owned(), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// Whether the query wants it.
fn selected(object: &Value, query: &BTreeMap<&str, &str>) -> bool {
    query.get("fieldselector").is_none_or(|selector| {
        let wanted = selector.replace("%3d", "=").replace("%2f", "/");
        wanted.strip_prefix("type=").is_some_and(|wanted| object["type"] == wanted)
    })
}

fn chunk(event: &Value) -> String {
    let line = format!("{event}\n");
    format!("{:x}\r\n{line}\r\n", line.len())
}

fn failure(code: u16, reason: &str, message: &str) -> String {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code });
    let body = body.to_string();
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
