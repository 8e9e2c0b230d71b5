//! `kind = "docker"`: containers whose labels say what they serve, at a Docker or at what speaks as it does (podman).
//!
//! ```text
//!   events ─► something happened ─► list ─► containers with labels of ours ─► inspect the new and the changed ─► documents
//! ```
//!
//! Events only say that it is time to look: what is there is always read anew, so an event that is lost, told twice or told
//! too early costs nothing but a moment. The stream is opened before the first look, and looked after at intervals.
//!
//! Spoken with [`crate::fetch`]'s client over the socket. A crate for Docker's whole API would bring a dozen others for the
//! three requests that are made here.

mod client;
mod container;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Has, Provider, Teller, Watch, backoff, labels::discovered::discovered};
use crate::config::{documents::Document, model::Docker};
use client::{Client, Event};
use container::Container;

/// How long after a first event others may come that belong to it: a `compose up` is many.
const TOGETHER: Duration = Duration::from_millis(50);

/// Some events are told a moment before what they are about holds.
const ONCE_MORE: Duration = Duration::from_secs(1);

/// All is looked at anew without any event.
const EVERY: Duration = Duration::from_secs(60);

/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// Labels that only make sense here.
const OWN_LABELS: [&str; 1] = ["network"];

pub struct Containers {
    pub provider: Arc<str>,
    pub source: Docker,
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    /// By their ids.
    containers: HashMap<String, Container>,
    /// About which there was an event of late.
    touched: HashSet<String>,
    documents: Option<Vec<Document>>,
}

impl Provider for Containers {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let mut seen = Seen::default();
            let mut failures = 0;
            loop {
                let Err(why) = self.follow(&teller, &mut seen, &mut failures).await;
                failures += 1;
                teller.away(format!("{}: {why}", self.source.endpoint)).await;
                sleep(backoff::wait(failures, LONGEST, fastrand::f64())).await;
            }
        })
    }
}

impl Containers {
    /// Until something fails.
    async fn follow(
        &self,
        teller: &Teller,
        seen: &mut Seen,
        failures: &mut u32,
    ) -> Result<Infallible, String> {
        let client = Client::new(&self.source)?;
        let mut events = client.events().await?;
        // Whatever was known may have changed meanwhile.
        seen.containers.clear();
        loop {
            let documents = self.look(&client, seen).await?;
            *failures = 0;
            if seen.documents.as_ref() == Some(&documents) {
                teller.same().await;
            } else {
                seen.documents = Some(documents.clone());
                teller.has(Has { documents, revision: None, whole: false }).await;
            }
            let pause = if seen.touched.is_empty() { EVERY } else { ONCE_MORE };
            match timeout(pause, events.next()).await {
                Ok(event) => {
                    seen.touch(event?);
                    let until = Instant::now() + TOGETHER;
                    while let Ok(event) = timeout_at(until, events.next()).await {
                        seen.touch(event?);
                    }
                }
                Err(_) => seen.doubt(),
            }
        }
    }
}

impl Containers {
    /// What is there now. Only what isn't known yet is asked for.
    async fn look(&self, client: &Client, seen: &mut Seen) -> Result<Vec<Document>, String> {
        let mut before = std::mem::take(&mut seen.containers);
        for listed in client.list().await?.into_iter().filter(container::Listed::is_ours) {
            let known = before.remove(&listed.id).filter(|known| known.is_still(&listed));
            let container = match known {
                Some(known) => Some(known),
                None => client.inspect(&listed.id).await?,
            };
            // One that is gone again was there for a moment.
            seen.containers.extend(container.map(|container| (listed.id, container)));
        }
        let network = self.source.network.as_deref();
        let things: Vec<_> = seen.containers.values().filter_map(|one| one.thing(network)).collect();
        let composed = discovered(&things, self.source.exposed_by_default, &OWN_LABELS);
        Ok(composed.documents(&self.provider))
    }
}

// === impl Seen ===

impl Seen {
    fn touch(&mut self, event: Event) {
        self.containers.remove(&event.container);
        self.touched.insert(event.container);
    }

    /// After some time: what was touched is looked at once more, and with nothing touched, everything is.
    fn doubt(&mut self) {
        match self.touched.is_empty() {
            true => self.containers.clear(),
            false => self.touched.drain().for_each(|id| _ = self.containers.remove(&id)),
        }
    }
}
