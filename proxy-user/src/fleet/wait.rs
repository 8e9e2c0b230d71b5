//! Looks on after a push until the hosts run it, and takes it back when one of them can't. The hosts would do so themselves; who
//! waits sees what they can't: that a host is gone since.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    now,
    publish::{self, Ground, PublishFault},
    report::Report,
    survey,
};
use crate::store::{
    etcd::Session,
    layout::{CURRENT, Current, HOSTS, Halted},
};

/// How often it is looked without news.
const LOOK: Duration = Duration::from_millis(500);

/// Why the hosts don't run it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitFault {
    #[error(transparent)]
    Publish(#[from] PublishFault),
    #[error("{}", survey::taken_back(.0))]
    Halted(Halted),
    #[error("generation {other} took its place")]
    Overtaken { other: u64 },
    #[error("{0}")]
    Late(String),
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For all of its hosts to run it.
    pub all: Duration,
    /// How long they must have run it well.
    pub soak: Duration,
}

/// What is told meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<'a> {
    Runs { host: &'a str },
    Promoted,
}

/// What is known of the hosts.
struct Watching<'a> {
    session: &'a Session,
    generation: u64,
    hosts: BTreeMap<String, Report>,
    /// Those that run it.
    there: Vec<String>,
}

/// Waits until every host that is there and that `pushed` is for runs it, and has for as long as it is to soak; then, where only
/// some have tried it, gives it to all and waits for them.
///
/// # Errors
/// When it was taken back, something else took its place, or they didn't in time.
pub async fn until_taken_over(
    session: &Session,
    pushed: &Current,
    patience: Patience,
    mut tell: impl FnMut(Told<'_>),
) -> Result<Current, WaitFault> {
    let mut current = pushed.clone();
    loop {
        let Patience { all, soak } = patience;
        let soak = if current.canary.is_empty() && pushed.canary.is_empty() { Duration::ZERO } else { soak };
        current = stage(session, current, all, soak, &mut tell).await?;
        if current.canary.is_empty() {
            return Ok(current);
        }
        let ground = Ground::read(session).await?;
        current = publish::promote(session, &ground).await?;
        tell(Told::Promoted);
    }
}

/// Until those run it for whom it is now.
async fn stage(
    session: &Session,
    mut current: Current,
    patience: Duration,
    soak: Duration,
    tell: &mut impl FnMut(Told<'_>),
) -> Result<Current, WaitFault> {
    let store = PublishFault::from;
    let late = Instant::now() + patience + soak;
    let listed = session.list(HOSTS).await.map_err(store)?;
    let hosts = survey::reports(session, HOSTS).await?;
    let mut watching = Watching { session, generation: current.generation, hosts, there: Vec::new() };
    let mut words = session.watch(HOSTS, true, listed.at).await.map_err(store)?;
    let mut decisions = session.watch(CURRENT, false, listed.at).await.map_err(store)?;
    let mut since = None;
    loop {
        let missing = watching.look(&current, tell).await?;
        match (missing.is_empty(), since) {
            (true, None) => since = Some(Instant::now()),
            (false, _) => since = None,
            (true, Some(_)) => {}
        }
        if since.is_some_and(|since| since.elapsed() >= soak) {
            return Ok(current);
        }
        if Instant::now() >= late {
            return Err(WaitFault::Late(format!(
                "generation {} stays current, but after {} s it isn't run by {}",
                current.generation,
                patience.as_secs(),
                missing.join(", ")
            )));
        }
        let soaked = since.map_or(late, |since| since + soak);
        tokio::select! {
            changed = words.next() => for change in changed.map_err(store)? {
                let Some(name) = change.key.strip_prefix(HOSTS).map(str::to_owned) else { continue };
                match change.value.and_then(|value| serde_json::from_slice(&value.bytes).ok()) {
                    Some(report) => drop(watching.hosts.insert(name, report)),
                    None => drop(watching.hosts.remove(&name)),
                }
            },
            changed = decisions.next() => for change in changed.map_err(store)? {
                let Some(value) = change.value else { continue };
                current = Current::read(&value.bytes).map_err(PublishFault::Refused)?;
                still(&current, watching.generation)?;
            },
            () = sleep_until(soaked.min(Instant::now() + LOOK)) => {}
        }
    }
}

/// Whether it is still about the same.
fn still(current: &Current, generation: u64) -> Result<(), WaitFault> {
    match &current.halted {
        _ if current.generation == generation => Ok(()),
        Some(halted) if halted.generation == generation => Err(WaitFault::Halted(halted.clone())),
        _ => Err(WaitFault::Overtaken { other: current.generation }),
    }
}

impl Watching<'_> {
    /// Who doesn't run it yet. Takes it back when somebody can't, or is gone.
    async fn look(
        &mut self,
        current: &Current,
        tell: &mut impl FnMut(Told<'_>),
    ) -> Result<Vec<String>, WaitFault> {
        let is_for = |host: &str| current.wanted(host, now()) == self.generation;
        let rejected = self.hosts.iter().find_map(|(name, report)| {
            let rejected = report.standing.rejected.as_ref()?;
            (rejected.generation == self.generation && is_for(name))
                .then(|| (name.clone(), rejected.why.clone()))
        });
        let gone = self.there.iter().find(|name| !self.hosts.contains_key(*name));
        let gone = gone.map(|name| (name.clone(), "it is gone since it runs it".to_owned()));
        // One that only some try goes when one of those is gone; in a whole fleet, hosts may come and go.
        if let Some((by, why)) = rejected.or_else(|| gone.filter(|_| !current.canary.is_empty())) {
            return Err(self.take_back(by, why).await);
        }
        for (name, report) in &self.hosts {
            if report.standing.generation == Some(self.generation) && !self.there.contains(name) {
                tell(Told::Runs { host: name });
                self.there.push(name.clone());
            }
        }
        self.there.retain(|name| self.hosts.contains_key(name));
        let mut missing: Vec<String> = self
            .hosts
            .iter()
            .filter(|(name, report)| is_for(name) && report.standing.generation != Some(self.generation))
            .map(|(name, _)| name.clone())
            .collect();
        let absent = current.canary.iter().filter(|name| !self.hosts.contains_key(*name));
        missing.extend(absent.map(|name| format!("{name} (which isn't there)")));
        if self.hosts.is_empty() {
            missing.push("any host: none is there".to_owned());
        }
        Ok(missing)
    }

    async fn take_back(&self, by: String, why: String) -> WaitFault {
        let halted = Halted { generation: self.generation, by, why, at: now() };
        match publish::halt(self.session, halted.clone()).await {
            Ok(true) => WaitFault::Halted(halted),
            // The host was faster, or somebody else.
            Ok(false) => match Ground::read(self.session).await {
                Ok(Ground { current: Some(current), .. }) => {
                    still(&current, self.generation).err().unwrap_or(WaitFault::Late(format!(
                        "generation {} stays current, although {} can't run it: {}",
                        self.generation, halted.by, halted.why
                    )))
                }
                Ok(_) => WaitFault::Halted(halted),
                Err(fault) => fault.into(),
            },
            Err(fault) => WaitFault::Publish(fault.into()),
        }
    }
}
