//! Runs the providers that a configuration asks for, and takes their words to the [`Board`].

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{Board, Said, Standing, Teller, Tried, Word, kept, open};
use crate::{
    config::{
        documents::{DocumentFault, Taken},
        model::{self, Config, ProviderSource},
    },
    fleet::member::{Ends, Member},
    journal::{Kind, Note},
    state_file::writer::WRITER,
};

/// So many words may wait to be taken down: more make their providers wait.
const QUEUE: usize = 16;

/// A host that has something to start with doesn't wait for a source longer than this.
const FIRST_WORDS: Duration = Duration::from_secs(2);

/// One that has nothing waits longer: without its documents it may have nothing to serve.
const VERY_FIRST_WORDS: Duration = Duration::from_secs(10);

/// What a provider has to say when it ends is waited for no longer than this.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The providers at work.
#[derive(Debug)]
pub struct Keeper {
    pub board: Arc<Board>,
    /// What the providers of a fleet are told.
    pub member: Arc<Member>,
    tasks: HashMap<Arc<str>, Keeping>,
    /// Counts tasks.
    number: u64,
    words: mpsc::Receiver<Said>,
    say: mpsc::Sender<Said>,
}

/// A running task. It ends when this is dropped.
#[derive(Debug)]
struct Keeping {
    provider: model::Provider,
    number: u64,
    task: tokio::task::JoinHandle<()>,
}

// === impl Keeper ===

impl Keeper {
    pub fn new(board: Arc<Board>) -> Self {
        let (say, words) = mpsc::channel(QUEUE);
        Self { board, member: Arc::default(), tasks: HashMap::new(), number: 0, words, say }
    }

    /// From now on asks these providers, and no others.
    pub fn follow(&mut self, config: &Config) {
        let wanted: Vec<_> = config.providers.iter().map(|provider| &provider.name).collect();
        self.tasks.retain(|name, _| wanted.contains(&name));
        self.board.retain(&wanted);
        self.ask(config);
    }

    /// Asks providers that are new or have changed, beside those that run, and waits for their first words: a
    /// configuration that is about to be tried may need what they give. Says whether there were any.
    pub async fn ask_new(&mut self, config: &Config) -> bool {
        let asked =
            |one: &model::Provider| self.tasks.get(&one.name).is_some_and(|known| known.provider == *one);
        if config.providers.iter().all(asked) {
            return false;
        }
        for provider in &config.providers {
            begin(&self.board, provider, &config.state.dir);
        }
        self.ask(config);
        self.first_words(config).await;
        true
    }

    fn ask(&mut self, config: &Config) {
        for provider in &config.providers {
            if self.tasks.get(&provider.name).is_some_and(|known| known.provider == *provider) {
                continue;
            }
            self.number += 1;
            let (number, say) = (self.number, self.say.clone());
            let teller = Teller { provider: provider.name.clone(), number, say };
            let task = tokio::spawn(open(provider, &self.member).watch(teller));
            self.tasks.insert(provider.name.clone(), Keeping { provider: provider.clone(), number, task });
        }
    }

    /// Who is away, and why.
    pub fn away(&self) -> Option<String> {
        let away = |name: &Arc<str>| {
            Some(format!("provider `{name}` is away: {}", self.board.standing(name).error?))
        };
        let mut all: Vec<_> = self.tasks.keys().filter_map(away).collect();
        all.sort_unstable();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Until every provider has said something, though not for ever.
    async fn first_words(&mut self, config: &Config) {
        let begun = Instant::now();
        loop {
            let silent =
                |provider: &&model::Provider| self.board.standing(&provider.name).reachable.is_none();
            let Some(provider) = config.providers.iter().find(silent) else { return };
            let has_something =
                self.board.supplies().get(&provider.name).is_some_and(|one| !one.good.is_empty());
            let patience = if has_something { FIRST_WORDS } else { VERY_FIRST_WORDS };
            match timeout_at(begun + patience, self.words.recv()).await {
                Ok(Some(said)) => _ = self.take(said),
                // This keeper itself holds a sender.
                Ok(None) => return,
                Err(_) => {
                    let word = Word::Away("it has not answered yet".to_owned());
                    let name = provider.name.clone();
                    self.note(&name, word);
                }
            }
        }
    }

    /// Resolves when there is something new to make a configuration of. Safe to cancel.
    pub async fn news(&mut self) {
        loop {
            let Some(said) = self.words.recv().await else { return std::future::pending().await };
            let mut news = self.take(said);
            // What others have said meanwhile goes the same way.
            while let Ok(said) = self.words.try_recv() {
                news |= self.take(said);
            }
            if news {
                return;
            }
        }
    }

    fn take(&self, Said { provider, number, word }: Said) -> bool {
        let current = self.tasks.get(&provider).is_some_and(|task| task.number == number);
        current && self.note(&provider, word)
    }

    fn note(&self, provider: &Arc<str>, word: Word) -> bool {
        let before = self.board.standing(provider);
        let news = self.board.note(provider, word, Timestamp::now());
        if !news {
            self.tell_member(Tried::NotYet);
        }
        tell(provider, &before, &self.board.standing(provider));
        news
    }

    /// A configuration could not be taken over: what providers have given since the one that runs isn't in force.
    pub fn refused(&self, why: &str) {
        self.tell_member(Tried::Refused(why));
    }

    fn tell_member(&self, tried: Tried<'_>) {
        for (provider, revision, outcome) in self.board.outcomes(tried) {
            if let Ok(generation) = revision.parse() {
                self.member.tell(&provider, (generation, outcome));
            }
        }
    }

    /// A configuration runs, of which these documents are part: they are kept for the next start, and what is wrong with
    /// others is told.
    pub fn took(&self, taken: &Taken, state: &Path) {
        let before: HashMap<_, _> =
            self.tasks.keys().map(|name| (name.clone(), self.board.standing(name))).collect();
        let fresh = self.board.took(taken);
        self.tell_member(Tried::Taken);
        for (name, before) in before {
            tell_documents(&name, &before, &self.board.standing(&name));
        }
        for (name, kept) in fresh {
            let state = PathBuf::from(state);
            // Not at once: what comes next must not wait for the disk.
            WRITER.write(kept::path(&state, &name), move || {
                if let Err(why) = kept::save(&state, &name, &kept) {
                    tracing::warn!(
                        "the documents of provider `{name}` run, but are not kept for the next start: {why}; may weir write \
                         there? (`[state] dir`)"
                    );
                }
            });
        }
    }

    /// Ends the providers' work; those that have told a store of this host say good-bye.
    pub async fn end(&mut self, ends: Ends) {
        self.member.leave(ends);
        // The others have nothing to say, and never end by themselves.
        let speaks = |keeping: &Keeping| matches!(keeping.provider.source, ProviderSource::Etcd(_));
        let ending = self.tasks.drain().map(|(_, keeping)| keeping).filter(speaks);
        // A store that is away is told nothing.
        let ending = ending.map(|mut keeping| async move { timeout(LAST_WORDS, &mut keeping.task).await });
        join_all(ending).await;
        // It blocks, and there is nothing else to do any more.
        let _ = tokio::task::spawn_blocking(|| WRITER.settle(LAST_WORDS)).await;
    }

    /// Another daemon of this host has taken over: what these providers have to say at their end holds nothing up.
    pub fn give_way(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { self.end(Ends::Process).await })
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What ran last, before anybody has been asked.
pub fn begin(board: &Board, provider: &model::Provider, state: &Path) {
    match kept::load(state, &provider.name) {
        Ok(Some(kept)) => board.begin_with(&provider.name, kept),
        Ok(None) => {}
        Err(why) => {
            let aside = crate::state_file::set_aside(&kept::path(state, &provider.name));
            tracing::error!(
                "{why}: provider `{}` has nothing to start with if its source is away; {aside}",
                provider.name
            );
        }
    }
}

/// That a source is away, or back.
fn tell(provider: &str, before: &Standing, now: &Standing) {
    match (&before.error, &now.error) {
        // The same trouble once more is no news.
        (Some(before), Some(why)) if before == why => tracing::debug!("provider `{provider}`: {why}"),
        (_, Some(why)) => {
            let message = format!("provider `{provider}` is away, its last good documents stay in force");
            tracing::warn!("{message}: {why}");
            Note::new(Kind::ProviderAway, message).provider(provider).why(why).write();
        }
        (Some(_), None) => {
            let message = format!("provider `{provider}` is back");
            tracing::info!("{message}");
            Note::new(Kind::ProviderBack, message).provider(provider).write();
        }
        (None, None) => {}
    }
}

/// Documents that are faulty now and were not, or are mended; and names that clash.
fn tell_documents(provider: &str, before: &Standing, now: &Standing) {
    let same = |one: &DocumentFault, two: &DocumentFault| {
        one.name == two.name && one.instead == two.instead && one.why() == two.why()
    };
    for fault in now.faults.iter().filter(|fault| !before.faults.iter().any(|known| same(known, fault))) {
        let (message, why) = (fault.sentence(), fault.why());
        tracing::error!("{message}:\n{why}");
        Note::new(Kind::DocumentFaulty, message).provider(provider).why(why).write();
    }
    for fault in before.faults.iter().filter(|fault| !now.faults.iter().any(|known| known.name == fault.name))
    {
        let message = format!("document {} of provider `{provider}` is fine again", fault.origin.display());
        tracing::info!("{message}");
        Note::new(Kind::DocumentMended, message).provider(provider).write();
    }
    for conflict in now.conflicts.iter().filter(|conflict| !before.conflicts.contains(conflict)) {
        Note::new(Kind::DocumentConflict, conflict.clone()).provider(provider).write();
    }
}
