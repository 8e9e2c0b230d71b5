//! `kind = "kubernetes"`: a cluster's Ingresses and Gateways, and the endpoints of their services.
//!
//! ```text
//!   API server ─► watcher, one for each kind (and namespace) ─► cluster ─► translate ─► documents
//!                 list, watch, anew                              objects    pure          ╰► certificates, if asked for
//! ```
//!
//! Weir only looks: it writes no status, and binds nothing. Each object is a document of its own; what of it can't be done as
//! it says is told, and never done otherwise. Nothing is told before all kinds have been listed once, so that a start never
//! takes half of a cluster for all of it.

mod api;
mod backends;
mod cluster;
mod filters;
mod gateway;
mod http_route;
mod ingress;
mod objects;
mod secrets;
mod tls_route;
mod translate;
mod watcher;
mod words;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Has, Provider, Teller, Watch};
use crate::config::{documents::Document, model::Kubernetes};
use api::{Api, Scope};
use cluster::{Cluster, Kind};
use watcher::{Said, Word};

/// Changes come in swarms: so long nothing more has to come before they count; but not for longer than this.
const QUIET: Duration = Duration::from_millis(100);
const AT_MOST: Duration = Duration::from_secs(1);

/// And so long is between two of them, since each is a new configuration.
const BREATH: Duration = Duration::from_millis(500);

/// So many words may wait.
const QUEUE: usize = 1024;

pub struct Objects {
    pub provider: Arc<str>,
    pub source: Kubernetes,
    /// For somebody who runs nothing of it: nothing is written.
    pub only_looks: bool,
}

/// What documents are made with.
struct Making {
    provider: Arc<str>,
    source: Kubernetes,
    /// Where certificates are put, by who may.
    folder: Option<PathBuf>,
}

/// What is known, and of how much of it.
struct Known {
    cluster: Cluster,
    scopes: Vec<Standing>,
    /// Whose reason was told last: one outage has as many reasons as kinds.
    told: usize,
}

/// How it is with a scope.
struct Standing {
    scope: Scope,
    /// It has been listed, or its kind isn't installed.
    known: bool,
    /// Why it can't be asked.
    away: Option<String>,
    /// It said that it is current since that was last told.
    current: bool,
}

/// What a word means for those who want documents.
#[derive(Debug, PartialEq)]
enum News {
    Change,
    None,
}

impl Provider for Objects {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let Self { provider, source, only_looks } = *self;
            let folder = source.certificates.clone().filter(|_| !only_looks);
            if let Some(folder) = folder.clone() {
                put(folder, None).await;
            }
            let api = Api { access: source.access.clone() };
            let scopes = scopes(&source);
            let (say, heard) = mpsc::channel(QUEUE);
            let follow =
                scopes.iter().enumerate().map(|(nth, scope)| watcher::follow(&api, scope, nth, &say));
            let mut all: FuturesUnordered<_> = follow.collect();
            let place = api.place();
            let making = Making { provider, source, folder };
            let listen = listen(&making, &place, &scopes, heard, &teller);
            tokio::select! {
                // Neither ever ends.
                () = listen => {}
                () = async { while all.next().await.is_some() {} } => {}
            }
        })
    }
}

/// What is looked at.
fn scopes(source: &Kubernetes) -> Vec<Scope> {
    let mut kinds = vec![Kind::Service, Kind::EndpointSlice];
    if source.ingress_class.is_some() {
        kinds.push(Kind::Ingress);
    }
    if source.gateway_class.is_some() {
        kinds.extend([Kind::Gateway, Kind::HttpRoute, Kind::TlsRoute]);
    }
    if source.certificates.is_some() {
        kinds.push(Kind::Secret);
    }
    let in_all = source.namespaces.is_empty();
    let namespaces: Vec<_> = match in_all {
        true => vec![None],
        false => source.namespaces.iter().map(|name| Some(name.to_string())).collect(),
    };
    let of_kind =
        |kind: Kind| namespaces.iter().map(move |namespace| Scope { kind, namespace: namespace.clone() });
    kinds.into_iter().flat_map(of_kind).collect()
}

/// Takes the watchers' words, and tells what comes of them.
async fn listen(
    making: &Making,
    place: &str,
    scopes: &[Scope],
    mut heard: mpsc::Receiver<Said>,
    teller: &Teller,
) {
    let mut known = Known::new(scopes);
    let mut told: Option<Vec<Document>> = None;
    let mut away = false;
    // When changes were first heard of, and last.
    let mut changed: Option<(Instant, Instant)> = None;
    let mut breath = Instant::now();
    loop {
        let due = changed.map(|(first, last)| (last + QUIET).min(first + AT_MOST).max(breath));
        let wait = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = heard.recv() => {
                let Some((number, word)) = said else { return };
                if known.take(number, word) == News::Change {
                    let now = Instant::now();
                    changed = Some((changed.map_or(now, |(first, _)| first), now));
                }
                if let Some(why) = known.away() {
                    away = true;
                    teller.away(format!("{place}: {why}")).await;
                } else if told.is_some() && (away || known.is_current()) {
                    away = false;
                    teller.same().await;
                }
            }
            () = wait => {
                changed = None;
                breath = Instant::now() + BREATH;
                if !known.is_whole() {
                    continue;
                }
                let documents = making.documents(&known.cluster).await;
                if told.as_ref() == Some(&documents) {
                    continue;
                }
                teller.has(Has { documents: documents.clone(), revision: None, whole: false }).await;
                told = Some(documents);
                // What one kind has to say doesn't wait for another that can't be asked.
                if let Some(why) = known.away() {
                    teller.away(format!("{place}: {why}")).await;
                }
            }
        }
    }
}

impl Making {
    /// What the objects come to. Certificates are in their place before anybody hears of the routes.
    async fn documents(&self, cluster: &Cluster) -> Vec<Document> {
        let Self { provider, source, folder } = self;
        let mut translated = translate::translate(provider, cluster, source);
        if source.certificates.is_some() {
            let files = secrets::files(&translated.secrets, &cluster.secrets, &mut translated.composed);
            if let Some(folder) = folder {
                put(folder.clone(), Some(files)).await;
            }
        }
        translated.composed.documents(provider)
    }
}

/// Puts certificates into their folder; with none, only makes it.
async fn put(folder: PathBuf, files: Option<std::collections::BTreeMap<String, Vec<u8>>>) {
    let putting = move || {
        let done = match files {
            Some(files) => secrets::put(&folder, &files),
            None => secrets::prepare(&folder),
        };
        if let Err(error) = done {
            tracing::error!(
                "certificates of the cluster can't be kept in {}: {error}; may weir write there? (`[state] dir`)",
                folder.display()
            );
        }
    };
    // A disk may take its time.
    let _ = tokio::task::spawn_blocking(putting).await;
}

impl Known {
    fn new(scopes: &[Scope]) -> Self {
        let standing =
            |scope: &Scope| Standing { scope: scope.clone(), known: false, away: None, current: false };
        Self { cluster: Cluster::default(), scopes: scopes.iter().map(standing).collect(), told: 0 }
    }

    fn take(&mut self, number: usize, word: Word) -> News {
        let standing = &mut self.scopes[number];
        let Scope { kind, namespace } = &standing.scope;
        let (kind, namespace) = (*kind, namespace.as_deref());
        let was_known = standing.known;
        let away = standing.away.take();
        match word {
            Word::All(objects) => {
                self.cluster.replace(kind, namespace, objects);
                (standing.known, standing.current) = (true, true);
                News::Change
            }
            Word::Put(object) => {
                self.cluster.put(kind, object);
                News::Change
            }
            Word::Gone(key) => {
                self.cluster.remove(kind, &key);
                News::Change
            }
            Word::Current => {
                standing.current = true;
                // What was heard before somebody else was away waits for this.
                if away.is_some() { News::Change } else { News::None }
            }
            Word::Absent if kind.is_built_in() => {
                standing.away = Some(format!("it doesn't know {}", kind.plural()));
                News::None
            }
            // A server that begins may not know yet what is installed.
            Word::Absent if self.cluster.has(kind, namespace) => {
                standing.away = Some(format!(
                    "it doesn't know {} any more, which is not believed (`gateway_class = \"off\"` says that it is meant)",
                    kind.plural()
                ));
                News::None
            }
            Word::Absent => {
                (standing.known, standing.current) = (true, true);
                if was_known { News::None } else { News::Change }
            }
            Word::Away(why) => {
                standing.away = Some(why);
                News::None
            }
        }
    }

    /// Everything has been listed.
    fn is_whole(&self) -> bool {
        self.scopes.iter().all(|scope| scope.known)
    }

    /// Why not all can be asked.
    fn away(&mut self) -> Option<&str> {
        let away = |scope: &Standing| scope.away.is_some();
        if !self.scopes.get(self.told).is_some_and(away) {
            self.told = self.scopes.iter().position(away)?;
        }
        self.scopes[self.told].away.as_deref()
    }

    /// Whether all have said so since this was last asked.
    fn is_current(&mut self) -> bool {
        let current = self.scopes.iter().all(|scope| scope.current);
        if current {
            self.scopes.iter_mut().for_each(|scope| scope.current = false);
        }
        current
    }
}
