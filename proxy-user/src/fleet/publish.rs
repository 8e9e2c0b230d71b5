//! What changes the store: a push, a way back, a word on what is tried. Each is one transaction that holds only if `current` is
//! what it was when it was read: of two at the same time, one is refused.

use std::time::Duration;

use super::now;
use crate::store::{
    etcd::{Session, StoreFault},
    layout::{
        CURRENT, Current, GENERATIONS, Generation, Halted, LARGEST, LAYOUT, Text, digest_of, generation_key,
        size_of,
    },
};

/// So long a host that can't run a generation takes it back for all; later, it is that host's own trouble.
pub const WATCHED: Duration = Duration::from_secs(60);

/// Why the store was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFault {
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// It is in the way of something that isn't decided yet, or there is nothing to do.
    #[error("{0}")]
    Refused(String),
}

/// What was read of the store before it is changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Ground {
    pub current: Option<Current>,
    revision: i64,
}

/// How a generation is to come.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// These hosts first; empty: all.
    pub canary: Vec<String>,
    /// Back by itself unless it is confirmed within this.
    pub confirm: Option<Duration>,
    pub author: String,
    pub message: String,
    /// Also over what is still tried.
    pub force: bool,
}

impl Ground {
    /// # Errors
    /// When the store is away, or what stands there can't be believed.
    pub async fn read(session: &Session) -> Result<Self, PublishFault> {
        let Some(stored) = session.get(CURRENT).await?.found else {
            return Ok(Self { current: None, revision: 0 });
        };
        let current = Current::read(&stored.bytes).map_err(PublishFault::Refused)?;
        Ok(Self { current: Some(current), revision: stored.revision })
    }

    fn some(&self) -> Result<&Current, PublishFault> {
        let nothing = || PublishFault::Refused("nothing was pushed to this store yet".to_owned());
        self.current.as_ref().ok_or_else(nothing)
    }

    /// What is undecided must be decided before something else comes.
    fn is_settled(&self, force: bool) -> Result<(), PublishFault> {
        let Some(current) = self.current.as_ref().filter(|_| !force) else { return Ok(()) };
        let generation = current.generation;
        if current.confirm_by.is_some_and(|by| by > now()) {
            return Err(PublishFault::Refused(format!(
                "generation {generation} is on trial: `weir fleet confirm` or `weir rollback {}` first",
                current.previous
            )));
        }
        if !current.canary.is_empty() {
            return Err(PublishFault::Refused(format!(
                "generation {generation} is only at {}: `weir fleet promote` or `weir rollback {}` first",
                current.canary.join(", "),
                current.previous
            )));
        }
        Ok(())
    }

    /// Writes what is to be current, if nobody was faster.
    async fn change(
        &self,
        session: &Session,
        next: Current,
        new: Option<&Generation>,
    ) -> Result<Current, PublishFault> {
        let mut unchanged = vec![(CURRENT, self.revision)];
        let mut puts = vec![(CURRENT, next.write())];
        let key = new.map(|generation| (generation_key(generation.generation), generation));
        if let Some((key, generation)) = &key {
            unchanged.push((key, 0));
            puts.push((key, generation.write()));
        }
        if session.swap(&unchanged, &puts).await? {
            return Ok(next);
        }
        let other = Self::read(session).await?.current;
        Err(PublishFault::Refused(match other {
            Some(other) => format!(
                "somebody else was faster: generation {} is current now, by {}; look at it (`weir history`), and try again",
                other.generation, other.author
            ),
            None => "somebody has emptied the store meanwhile".to_owned(),
        }))
    }
}

/// Writes documents as the next generation, and makes it current.
///
/// # Errors
/// When somebody was faster, something is undecided, they are too many, or the store is away. Then nothing has changed.
pub async fn push(
    session: &Session,
    ground: &Ground,
    documents: Vec<Text>,
    terms: &Terms,
) -> Result<Current, PublishFault> {
    ground.is_settled(terms.force)?;
    let size = size_of(&documents);
    if size > LARGEST {
        return Err(PublishFault::Refused(format!(
            "the documents have {size} bytes, and {LARGEST} fit into the store: name long lists by `url` or `file`"
        )));
    }
    let digest = digest_of(&documents);
    let before = ground.current.as_ref();
    if let Some(current) = before
        && current.digest == digest
        && current.canary.is_empty()
    {
        return Err(PublishFault::Refused(format!("nothing differs from generation {}", current.generation)));
    }
    let at = now();
    let generation = before.map_or(0, |current| current.latest) + 1;
    let base = before.map_or(0, |current| current.generation);
    let new = Generation {
        layout: LAYOUT,
        generation,
        digest: digest.clone(),
        base,
        author: terms.author.clone(),
        at,
        message: terms.message.clone(),
        documents,
    };
    // What is only tried, and pushed over, is nothing to go back to.
    let tried = |current: &Current| !current.canary.is_empty() || current.confirm_by.is_some();
    let previous = before.map_or(0, |current| if tried(current) { current.previous } else { base });
    let next = Current { generation, digest, previous, latest: generation, ..decided(ground, terms, at) };
    ground.change(session, next, Some(&new)).await
}

/// Makes an earlier generation current again: for all hosts, at once.
///
/// # Errors
/// When there is no such generation, somebody was faster, or the store is away.
pub async fn roll_back(
    session: &Session,
    ground: &Ground,
    generation: u64,
    terms: &Terms,
) -> Result<Current, PublishFault> {
    let current = ground.some()?;
    if current.generation == generation && current.canary.is_empty() {
        return Err(PublishFault::Refused(format!("generation {generation} is current already")));
    }
    let digest = self::generation(session, generation).await?.digest;
    let previous = current.generation;
    let next = Current { generation, digest, previous, ..decided(ground, terms, now()) };
    ground.change(session, next, None).await
}

/// Keeps what is on trial.
///
/// # Errors
/// When nothing is, its time is over, somebody was faster, or the store is away.
pub async fn confirm(session: &Session, ground: &Ground) -> Result<Current, PublishFault> {
    let current = ground.some()?;
    match current.confirm_by {
        None => Err(PublishFault::Refused(format!(
            "generation {} is not on trial (it was not pushed with --confirm, is confirmed, or was taken back)",
            current.generation
        ))),
        Some(by) if by <= now() => Err(PublishFault::Refused(format!(
            "the time of generation {} is over: the hosts go back to {}",
            current.generation, current.previous
        ))),
        Some(_) => {
            let next = Current { confirm_by: None, ..current.clone() };
            ground.change(session, next, None).await
        }
    }
}

/// Gives all hosts what some have tried.
///
/// # Errors
/// When nothing is tried, somebody was faster, or the store is away.
pub async fn promote(session: &Session, ground: &Ground) -> Result<Current, PublishFault> {
    let current = ground.some()?;
    if current.canary.is_empty() {
        let why = format!("generation {} is for all hosts already", current.generation);
        return Err(PublishFault::Refused(why));
    }
    let at = now();
    let next = Current { canary: Vec::new(), at, watch_until: at + millis(WATCHED), ..current.clone() };
    ground.change(session, next, None).await
}

/// Takes what is current back, if it still is what `halted` speaks of and may still go. Whether this did it.
///
/// # Errors
/// When the store is away.
pub async fn halt(session: &Session, halted: Halted) -> Result<bool, StoreFault> {
    let ground = match Ground::read(session).await {
        Ok(ground) => ground,
        Err(PublishFault::Store(fault)) => return Err(fault),
        Err(PublishFault::Refused(_)) => return Ok(false),
    };
    let Some(current) = ground.current.as_ref().filter(|current| {
        current.generation == halted.generation && (current.is_watched(now()) || current.is_over(now()))
    }) else {
        return Ok(false);
    };
    let previous = match generation(session, current.previous).await {
        Ok(previous) => previous,
        Err(PublishFault::Store(fault)) => return Err(fault),
        // It names what isn't there: the hosts say so themselves.
        Err(PublishFault::Refused(_)) => return Ok(false),
    };
    let watch_until = halted.at + millis(WATCHED);
    let next = current.back(&previous, halted, watch_until);
    match ground.change(session, next, None).await {
        Ok(_) => Ok(true),
        Err(PublishFault::Store(fault)) => Err(fault),
        Err(PublishFault::Refused(_)) => Ok(false),
    }
}

/// The latest generations in the store, at most so many, the latest first. Those that can't be believed are left out.
///
/// # Errors
/// When the store is away.
pub async fn history(session: &Session, most: usize) -> Result<Vec<Generation>, PublishFault> {
    let mut numbers: Vec<u64> =
        session.names(GENERATIONS).await?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let mut all = Vec::new();
    // One by one: together they may be more than fits into an answer.
    for number in numbers.into_iter().rev().take(most) {
        match generation(session, number).await {
            Ok(generation) => all.push(generation),
            Err(PublishFault::Refused(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(all)
}

/// One generation.
///
/// # Errors
/// When it isn't there, can't be believed, or the store is away.
pub async fn generation(session: &Session, number: u64) -> Result<Generation, PublishFault> {
    if number == 0 {
        return Ok(super::reconcile::nothing());
    }
    let found = session.get(&generation_key(number)).await?.found;
    let stored = found.ok_or_else(|| {
        PublishFault::Refused(format!(
            "there is no generation {number} (`weir history` shows which there are)"
        ))
    })?;
    Generation::read(number, &stored.bytes).map_err(PublishFault::Refused)
}

/// What every decision has: the rest is said by each.
fn decided(ground: &Ground, terms: &Terms, at: i64) -> Current {
    let before = ground.current.as_ref();
    Current {
        layout: LAYOUT,
        generation: 0,
        digest: String::new(),
        previous: 0,
        latest: before.map_or(0, |current| current.latest),
        canary: terms.canary.clone(),
        at,
        watch_until: at + millis(WATCHED),
        confirm_by: terms.confirm.map(|time| at + millis(time)),
        halted: None,
        author: terms.author.clone(),
        more: before.map(|current| current.more.clone()).unwrap_or_default(),
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}
