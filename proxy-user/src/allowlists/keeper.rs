//! Keeps the lists that are in use current: a task for each, which waits, fetches, doubts, hands over and remembers.
//!
//! A task decides nothing about what runs. It sends [`News`] to the control side, which applies the list as it applies a
//! reload, and says what came of it; only what is in force is kept on disk.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    Ask, Board, Good, Outcome, Part, Terms, format, in_force,
    judge::{self, Diff},
    schedule,
    store::{Store, StoreFault},
};
use crate::config::{
    model::{Allowlist, AllowlistId, Config, Fetch},
    show_duration,
};
use crate::{
    fetch::{self, Answer, Question},
    journal::{Kind, Note},
};

/// A million prefixes fit in this many bytes.
const LARGEST: usize = 32 << 20;

/// A list that was fetched and is believed. Whoever gets it puts it into force, and answers.
#[derive(Debug)]
pub struct News {
    pub list: Arc<str>,
    pub good: Arc<Good>,
    pub terms: Terms,
    /// What it changed, or why it could not be put into force.
    pub answer: oneshot::Sender<Result<Diff, String>>,
}

/// The tasks, and what they share.
#[derive(Debug)]
pub struct Keeper {
    pub board: Arc<Board>,
    tasks: HashMap<Arc<str>, Keeping>,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
}

/// A running task. It ends when this is dropped.
#[derive(Debug)]
struct Keeping {
    fetch: Fetch,
    store: Store,
    task: tokio::task::JoinHandle<()>,
}

/// All that a task knows.
struct Task {
    list: Arc<str>,
    fetch: Fetch,
    store: Store,
    board: Arc<Board>,
    tell: mpsc::Sender<News>,
}

// === impl Keeper ===

impl Keeper {
    pub fn new(board: Arc<Board>) -> Self {
        let (tell, news) = mpsc::channel(1);
        Self { board, tasks: HashMap::new(), news, tell }
    }

    /// From now on keeps the lists of `config` current, as far as they are used, and no others.
    pub fn follow(&mut self, config: &Config) {
        let store = Store::within(&config.state.dir);
        let wanted: HashMap<&Arc<str>, (&Allowlist, &Fetch)> = config
            .allowlists
            .iter()
            .enumerate()
            .filter(|(id, _)| config.refers_to(AllowlistId(*id)))
            .filter_map(|(_, list)| Some((&list.name, (list, list.fetch.as_ref()?))))
            .collect();
        let board = &self.board;
        self.tasks.retain(|list, keeping| {
            let stays = wanted
                .get(list)
                .is_some_and(|(_, fetch)| fetch.same_as(&keeping.fetch) && store == keeping.store);
            if !stays {
                board.not_fetched(list);
            }
            stays
        });
        for (name, (list, fetch)) in wanted {
            if self.tasks.contains_key(name) {
                continue;
            }
            if list.prefixes.is_empty() {
                tracing::warn!(
                    "allowlist `{name}` has never been fetched: nobody on it can come in until that succeeds \
                     (`prefixes` beside `url` would let some in from the start)"
                );
            }
            self.tasks.insert(name.clone(), self.keep(name, fetch, &store));
        }
    }

    fn keep(&self, list: &Arc<str>, fetch: &Fetch, store: &Store) -> Keeping {
        let (ask, asks) = mpsc::channel(4);
        self.board.fetched_by(list, ask);
        let task = Task {
            list: list.clone(),
            fetch: fetch.clone(),
            store: store.clone(),
            board: self.board.clone(),
            tell: self.tell.clone(),
        };
        Keeping { fetch: fetch.clone(), store: store.clone(), task: tokio::spawn(task.run(asks)) }
    }

    /// The next list that was fetched. Safe to cancel.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // This keeper itself holds a sender.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Task ===

impl Task {
    /// At once, and then by schedule; and whenever it is asked.
    async fn run(self, mut asks: mpsc::Receiver<Ask>) {
        let mut failures = 0;
        let mut wait = self.fetch.refresh.map(|_| Duration::ZERO);
        loop {
            let ask = tokio::select! {
                () = wait_for(wait) => None,
                ask = asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
            };
            let terms = ask.as_ref().map(|ask| ask.terms).unwrap_or_default();
            let outcome = self.attempt(terms).await;
            failures = if outcome.is_ok() { 0 } else { failures + 1 };
            wait = self.fetch.refresh.map(|every| schedule::delay(every, failures, fastrand::f64()));
            self.record(&outcome, wait);
            if let Some(ask) = ask {
                // Whoever asked may have gone.
                let _ = ask.answer.send(outcome);
            }
        }
    }

    async fn attempt(&self, terms: Terms) -> Result<Outcome, String> {
        let known = self.board.good(&self.list).filter(|good| good.source == self.fetch.source);
        let parts =
            timeout(self.fetch.timeout, self.fetch_all(known.as_deref())).await.unwrap_or_else(|_| {
                Err(format!("{}: it took longer than {}", self.urls(), show_duration(self.fetch.timeout)))
            })?;
        let good = Good { source: self.fetch.source.clone(), parts, confirmed: Timestamp::now() };
        let limit = if terms.accept_shrunken { 0 } else { self.fetch.shrink_limit };
        let floor = self.fetch.floor.clone();
        let good = blocking(move || {
            let before = known.map_or(floor, |known| known.prefixes());
            judge::judge(&before, &good.prefixes(), limit).map_err(|doubt| doubt.to_string())?;
            Ok(Arc::new(good))
        })
        .await
        .map_err(|why| format!("{}: the list is refused: {why}", self.urls()))?;
        let diff = self.hand_over(good.clone(), terms).await?;
        self.remember(good).await;
        Ok(if diff.is_empty() { Outcome::Unchanged } else { Outcome::Changed(diff) })
    }

    /// All URLs, one after the other: a list is all of them or none.
    async fn fetch_all(&self, known: Option<&Good>) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        for (index, url) in self.fetch.source.urls.iter().enumerate() {
            let known = known.and_then(|good| good.parts.get(index));
            let part = self.fetch_one(url, known).await.map_err(|why| format!("{url}: {why}"))?;
            parts.push(part);
        }
        Ok(parts)
    }

    async fn fetch_one(&self, url: &http::Uri, known: Option<&Part>) -> Result<Part, String> {
        let etag = known.and_then(|part| part.etag.as_deref());
        let (headers, authorities) = (&http::HeaderMap::new(), &self.fetch.authorities);
        let question = Question { url, known: etag, headers, authorities, largest: LARGEST };
        let answer = fetch::get(question).await;
        match (answer.map_err(|fault| fault.to_string())?, known) {
            (Answer::Whole { body, etag }, _) => {
                let pointers = self.fetch.source.json.clone();
                let read = move || format::read(&body, &pointers).map_err(|fault| fault.to_string());
                let prefixes = blocking(read).await.map_err(|why| format!("the list is refused: {why}"))?;
                if prefixes.is_empty() {
                    return Err("the list is refused: it is empty".to_owned());
                }
                Ok(Part { etag, prefixes })
            }
            (Answer::NotModified, Some(known)) => Ok(known.clone()),
            (Answer::NotModified, None) => Err(fetch::FetchFault::NothingToCompare.to_string()),
        }
    }

    /// The control side puts it into force, or says why not.
    async fn hand_over(&self, good: Arc<Good>, terms: Terms) -> Result<Diff, String> {
        let (answer, answered) = oneshot::channel();
        let gone = |_| "the daemon is ending".to_owned();
        let news = News { list: self.list.clone(), good, terms, answer };
        self.tell.send(news).await.map_err(|_| gone(()))?;
        answered
            .await
            .map_err(|_| gone(()))?
            .map_err(|why| format!("the list can't be put into force: {why}"))
    }

    /// It is in force whether the disk takes it or not.
    async fn remember(&self, good: Arc<Good>) {
        let (store, list) = (self.store.clone(), self.list.clone());
        let saved = blocking(move || Ok::<_, String>(store.save(&list, &good))).await;
        if let Ok(Err(fault)) = saved {
            warn_of(&self.list, &fault);
        }
    }

    fn record(&self, outcome: &Result<Outcome, String>, wait: Option<Duration>) {
        let now = Timestamp::now();
        let next = wait.and_then(|wait| now.checked_add(wait).ok());
        let last = self.board.standing(&self.list).and_then(|standing| standing.last_error);
        match outcome {
            // The same trouble once more is no news.
            Err(why) if last.as_ref() == Some(why) => tracing::debug!("allowlist `{}`: {why}", self.list),
            Err(why) => {
                let message = format!(
                    "allowlist `{}` could not be refreshed, the last good one stays in force",
                    self.list
                );
                tracing::warn!("{message}: {why}");
                Note::new(Kind::AllowlistFailed, message).allowlist(&*self.list).why(why).write();
            }
            Ok(_) if last.is_some() => {
                let message = format!("allowlist `{}` is refreshed again", self.list);
                tracing::info!("{message}");
                Note::new(Kind::AllowlistRecovered, message).allowlist(&*self.list).write();
            }
            Ok(_) => {}
        }
        self.board.attempted(&self.list, now, outcome.as_ref().err().cloned(), next);
    }

    fn urls(&self) -> String {
        self.fetch.source.urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn warn_of(list: &str, fault: &StoreFault) {
    tracing::warn!(
        "allowlist `{list}` is in force, but not kept for the next start: {fault}; may weir write there? (`[state] dir`)"
    );
}

async fn wait_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Off the control side's thread, on which servers are probed: a list may have a million lines.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What `list` has in force, and what of it changes with `good`.
pub fn change(list: &Allowlist, good: &Good) -> (Vec<IpNet>, Diff) {
    let prefixes = in_force(list, Some(good));
    let diff = Diff::between(&list.prefixes, &prefixes);
    (prefixes, diff)
}
