//! Keys on which the fleet agrees: takes them up, writes them where there are none, and renews those of tickets.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Place;
use crate::{
    config::model::Config,
    control::apply::Fleet,
    fleet::{
        self,
        seal::FleetKeys,
        shared::{
            keys::{self, STICKY, Secret, TICKETS, TicketSecrets, place},
            link::{Link, Value, Write},
        },
    },
    snapshot::Snapshot,
    sticky::key::fresh,
};

/// Hosts don't all renew at the same moment: each so many milliseconds later at most.
const SPREAD: i64 = 600_000;

/// What couldn't be written is tried again after this.
const AGAIN: i64 = 60_000;

#[derive(Debug)]
pub struct Keying {
    /// `None`: nothing is shared.
    keys: Option<Arc<FleetKeys>>,
    prefix: String,
    /// This host's place in [`SPREAD`].
    later: i64,
    sticky: Found<Secret>,
    tickets: Found<TicketSecrets>,
    /// What a sealed value was written anew for is done once: two hosts may hold the fleet's keys in another order.
    sealed_anew: bool,
    /// When it is time to look at the tickets', by the fleet's clock.
    look: i64,
    /// The snapshot whose tickets know.
    generation: u64,
}

/// What was found in the store.
#[derive(Debug)]
enum Found<T> {
    NotYet,
    Nothing,
    /// Something that this host can't open. Why.
    Closed(String),
    There {
        revision: i64,
        value: T,
        sealed: Vec<u8>,
        news: bool,
    },
}

impl Keying {
    pub fn new(place: &Place) -> Self {
        if place.keys.is_none() {
            tracing::info!(
                "`[fleet] key_file` is not set: sticky cookies and session tickets of this host mean nothing to the others"
            );
        }
        Self {
            keys: place.keys.clone(),
            prefix: place.address.prefix.clone(),
            later: fastrand::i64(..SPREAD).abs() % SPREAD,
            sticky: Found::NotYet,
            tickets: Found::NotYet,
            sealed_anew: false,
            look: 0,
            generation: 0,
        }
    }

    /// Whether keys are shared, or why not.
    pub fn told(&self) -> String {
        if self.keys.is_none() {
            return "not shared: `[fleet] key_file` is not set".to_owned();
        }
        let tell = |what: &str, fault: Option<&str>, there: bool| match (fault, there) {
            (Some(why), _) => format!("{what} not shared: {why}"),
            (None, true) => format!("{what} shared"),
            (None, false) => format!("{what} not shared yet"),
        };
        let sticky = tell("sticky cookies", self.sticky.fault(), self.sticky.value().is_some());
        let tickets = tell("session tickets", self.tickets.fault(), self.tickets.value().is_some());
        format!("{sticky}, {tickets}")
    }

    /// All was read, and these are there.
    pub fn begin(&mut self, there: &[(String, Value)]) {
        let is_there = |wanted: &str| there.iter().any(|(name, _)| name == wanted);
        if !is_there(STICKY) {
            self.sticky = Found::Nothing;
        }
        if !is_there(TICKETS) {
            self.tickets = Found::Nothing;
        }
    }

    /// What stands there now; `None`: nothing any more.
    pub fn changed(&mut self, name: &str, value: Option<Value>) {
        let Some(keys) = self.keys.clone() else { return };
        let place = place(&self.prefix, name);
        let open = |value: &Value| keys.open(&place, &value.bytes).map_err(|fault| fault.to_string());
        match name {
            STICKY => self.sticky.follow(name, value, |value| keys::sticky(&open(value)?)),
            TICKETS => {
                self.tickets.follow(name, value, |value| TicketSecrets::read(&open(value)?));
                self.look = 0;
            }
            // Of a weir that knows more.
            _ => {}
        }
    }

    /// Writes what is missing, and what is to be renewed.
    pub fn write(&mut self, snapshot: &Snapshot, link: &Link) {
        let Some(keys) = self.keys.clone() else { return };
        let now = fleet::now();
        if let Found::Nothing = self.sticky {
            // This host's visitors keep their servers, at least.
            self.put(&keys, STICKY, &keys::write_sticky(&snapshot.splits.own_key().secret()), 0, link);
            self.sticky = Found::NotYet;
        }
        match &self.tickets {
            Found::Nothing => {
                self.put(&keys, TICKETS, &TicketSecrets::new(fresh(), now).write(), 0, link);
                self.tickets = Found::NotYet;
            }
            Found::There { revision, value, .. } if self.look <= now => {
                let left = value.due(now, self.later);
                if left == 0 {
                    self.put(&keys, TICKETS, &value.renewed(fresh(), now).write(), *revision, link);
                }
                self.look = now + left.max(AGAIN);
            }
            _ => {}
        }
        if !std::mem::replace(&mut self.sealed_anew, true) {
            if let Some((revision, value)) = self.sticky.sealed_before(&keys) {
                self.put(&keys, STICKY, &keys::write_sticky(value), revision, link);
            }
            if let Some((revision, value)) = self.tickets.sealed_before(&keys) {
                self.put(&keys, TICKETS, &value.write(), revision, link);
            }
        }
    }

    /// When something is to be renewed.
    pub fn due(&self) -> Option<Instant> {
        let left = self.tickets.value().map(|_| self.look - fleet::now())?;
        Some(Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Has what runs go on with what was found.
    pub async fn put_into_force(&mut self, fleet: &mut Fleet) {
        if let Found::There { value, sealed, news, .. } = &mut self.sticky
            && std::mem::take(news)
        {
            let running = fleet.running().load_full();
            let known = running.splits.agree(*value);
            keep(&running.config, sealed);
            if known {
                tracing::info!(
                    "the fleet's key signs sticky cookies from now on; this host's own are still understood"
                );
                if let Err(fault) = fleet.replace(running.config.clone()).await {
                    tracing::error!(%fault, "the fleet's key of sticky cookies holds from the next reload on");
                }
            }
        }
        let tickets_are_news = match &mut self.tickets {
            Found::There { news, .. } => std::mem::take(news),
            _ => false,
        };
        if tickets_are_news {
            self.generation = 0;
        }
        self.follow(&fleet.running().load());
    }

    /// Rules that came with a new configuration have the fleet's tickets too.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let Some(secrets) = self.tickets.value() else { return };
        if snapshot.generation == self.generation {
            return;
        }
        self.generation = snapshot.generation;
        let shared = secrets.shared(fleet::now());
        for entrypoint in &snapshot.entrypoints {
            for rules in entrypoint.tls.iter().flat_map(|tls| tls.all_rules()) {
                let name = [entrypoint.name.as_bytes(), &[0], &rules.policy.bytes()].concat();
                rules.tickets.share(&shared, &name);
            }
        }
    }

    fn put(&self, keys: &FleetKeys, name: &str, plain: &[u8], only_at: i64, link: &Link) {
        match keys.seal(&place(&self.prefix, name), plain) {
            // Of several hosts that write at once, one is first, and the others hear of it.
            Ok(bytes) => {
                link.write(Write {
                    key: name.to_owned(),
                    bytes,
                    lasts: None,
                    only_at: Some(only_at),
                    or_anew: false,
                });
            }
            Err(fault) => tracing::error!("`{name}` {fault}"),
        }
    }
}

fn keep(config: &Config, sealed: &[u8]) {
    if let Err(error) = keys::keep(config, sealed) {
        tracing::warn!(
            "the fleet's key of sticky cookies can't be kept ({error}): started while the store is away, this host doesn't understand \
             the others' cookies (`[state] dir`)"
        );
    }
}

// === impl Found ===

impl<T: PartialEq> Found<T> {
    fn follow(&mut self, name: &str, value: Option<Value>, open: impl FnOnce(&Value) -> Result<T, String>) {
        let Some(found) = value else {
            *self = Self::Nothing;
            return;
        };
        *self = match open(&found) {
            Ok(value) => {
                let news = self.value() != Some(&value) || matches!(self, Self::There { news: true, .. });
                Self::There { revision: found.revision, value, sealed: found.bytes, news }
            }
            Err(why) => {
                if self.fault() != Some(&why) {
                    tracing::warn!("`shared/{name}` in the store {why}: this host uses its own");
                }
                Self::Closed(why)
            }
        };
    }

    fn value(&self) -> Option<&T> {
        match self {
            Self::There { value, .. } => Some(value),
            _ => None,
        }
    }

    fn fault(&self) -> Option<&str> {
        match self {
            Self::Closed(why) => Some(why),
            _ => None,
        }
    }

    /// What another of the fleet's keys has sealed than the one that seals now, and its revision.
    fn sealed_before(&self, keys: &FleetKeys) -> Option<(i64, &T)> {
        match self {
            Self::There { revision, value, sealed, .. } if !keys.is_current(sealed) => {
                Some((*revision, value))
            }
            _ => None,
        }
    }
}
