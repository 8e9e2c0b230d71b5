//! Providers: where configuration comes from beside the host's own files.
//!
//! ```text
//!   directory ╮            a word                     all words                 what was taken
//!   http      ├─ watch ──────────────► keeper, board ───────────► config::load_with ─────────────► kept on disk
//!   consul    ╯  has · same · away                                (control side)
//! ```
//!
//! A provider gives documents: named pieces of configuration text. Each kind is a [`Provider`], which runs as a task,
//! watches its source, and says a [`Word`] whenever there is something to say. The [`keeper`] runs them and takes their
//! words; what is known of each is on the [`Board`]. Which documents become part of the configuration is for
//! [`crate::config`] to say; those that did are kept on disk ([`kept`]), and are what a host starts with while a source is
//! away. Nothing here knows what a document means.

pub mod asked;
pub mod keeper;
pub mod kept;
mod backoff;
pub mod composed;
mod consul;
#[cfg(feature = "consul-catalog")]
mod catalog;
mod directory;
#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "etcd")]
mod etcd;
mod http;
#[cfg(feature = "kubernetes")]
mod kubernetes;
pub mod labels;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    config::{
        documents::{Document, DocumentFault, Supplies, Supply, Taken},
        model::{self, ProviderSource},
    },
    fleet::member::Member,
};

/// A source of documents.
pub trait Provider: Send {
    /// Watches the source, and tells what it has, for as long as the future lives. It never ends by itself.
    fn watch(self: Box<Self>, teller: Teller) -> Watch;
}

/// A provider at work.
pub type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a provider has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// This is what the source has.
    Has(Has),
    /// The source has what it had.
    Same,
    /// The source can't be asked, or what it says makes no sense. Why, as the end of a sentence.
    Away(String),
}

/// All that a source has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Has {
    pub documents: Vec<Document>,
    /// What the source itself calls this state, for people: an entity tag, an index, a generation.
    pub revision: Option<String>,
    /// All of it or nothing: if one document is faulty, none of this is taken.
    pub whole: bool,
}

/// With what a provider tells its words.
#[derive(Debug, Clone)]
pub struct Teller {
    provider: Arc<str>,
    /// Of the task. Words of one that has ended don't count any more.
    number: u64,
    say: mpsc::Sender<Said>,
}

#[derive(Debug)]
struct Said {
    provider: Arc<str>,
    number: u64,
    word: Word,
}

/// What is known of each provider. Written by the control side, read by the admin API.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Arc<str>, Known>>);

#[derive(Debug, Default)]
struct Known {
    supply: Supply,
    standing: Standing,
}

/// How a provider is.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Its source answered last time. `None`: it has not been asked yet.
    pub reachable: Option<bool>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When its source last said that this is what it has.
    pub confirmed: Option<Timestamp>,
    /// Why its source is away.
    pub error: Option<String>,
    pub revision: Option<String>,
    /// So many documents of it run.
    pub documents: usize,
    /// Those that are not as the source has them.
    pub faults: Vec<DocumentFault>,
    /// What was left out of them: lines.
    pub conflicts: Vec<String>,
}

/// What was made of all that is known.
#[derive(Debug, Clone, Copy)]
enum Tried<'a> {
    NotYet,
    /// A configuration that runs.
    Taken,
    /// Nothing: why.
    Refused(&'a str),
}

/// The provider that a configuration asks for.
#[must_use]
pub fn open(provider: &model::Provider, member: &Arc<Member>) -> Box<dyn Provider> {
    match &provider.source {
        ProviderSource::Directory(directory) => Box::new(directory::Folder::new(directory.clone())),
        ProviderSource::Http(source) => {
            Box::new(http::Polled { provider: provider.name.clone(), source: (**source).clone() })
        }
        ProviderSource::Consul(source) => {
            Box::new(consul::Keys { provider: provider.name.clone(), source: (**source).clone() })
        }
        #[cfg(feature = "kubernetes")]
        ProviderSource::Kubernetes(source) => {
            let (provider, source) = (provider.name.clone(), (**source).clone());
            Box::new(kubernetes::Objects { provider, source, only_looks: member.only_looks() })
        }
        #[cfg(not(feature = "kubernetes"))]
        ProviderSource::Kubernetes(_) => unreachable!("a configuration with one isn't valid in this build"),
        #[cfg(feature = "consul-catalog")]
        ProviderSource::ConsulCatalog(source) => {
            Box::new(catalog::Services { provider: provider.name.clone(), source: (**source).clone() })
        }
        #[cfg(not(feature = "consul-catalog"))]
        ProviderSource::ConsulCatalog(_) => {
            unreachable!("a configuration with one isn't valid in this build")
        }
        #[cfg(feature = "docker")]
        ProviderSource::Docker(source) => {
            Box::new(docker::Containers { provider: provider.name.clone(), source: (**source).clone() })
        }
        #[cfg(not(feature = "docker"))]
        ProviderSource::Docker(_) => unreachable!("a configuration with one isn't valid in this build"),
        #[cfg(feature = "etcd")]
        ProviderSource::Etcd(source) => Box::new(etcd::Store {
            provider: provider.name.clone(),
            source: (**source).clone(),
            member: member.clone(),
        }),
        #[cfg(not(feature = "etcd"))]
        ProviderSource::Etcd(_) => {
            unreachable!("a configuration with one isn't valid in this build: {member:?}")
        }
    }
}

// === impl Teller ===

impl Teller {
    pub async fn has(&self, has: Has) {
        self.say(Word::Has(has)).await;
    }

    pub async fn same(&self) {
        self.say(Word::Same).await;
    }

    pub async fn away(&self, why: impl Into<String>) {
        self.say(Word::Away(why.into())).await;
    }

    async fn say(&self, word: Word) {
        let said = Said { provider: self.provider.clone(), number: self.number, word };
        // The receiver is gone only when the daemon ends.
        let _ = self.say.send(said).await;
    }
}

// === impl Board ===

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to make a configuration of.
    pub fn supplies(&self) -> Supplies {
        self.lock().iter().map(|(name, known)| (name.clone(), known.supply.clone())).collect()
    }

    /// What ran last, as if the sources had it. `None`: that is what they have.
    pub fn last_good(&self) -> Option<Supplies> {
        let all = self.supplies();
        let news = all.values().any(|supply| supply.wanted != supply.good);
        let last = |supply: Supply| Supply { wanted: supply.good.clone(), ..supply };
        news.then(|| all.into_iter().map(|(name, supply)| (name, last(supply))).collect())
    }

    pub fn standing(&self, provider: &str) -> Standing {
        self.lock().get(provider).map(|known| known.standing.clone()).unwrap_or_default()
    }

    /// What ran last, from the disk. What is known better stays.
    fn begin_with(&self, provider: &Arc<str>, kept: kept::Kept) {
        let mut board = self.lock();
        let known = board.entry(provider.clone()).or_default();
        if known.supply == Supply::default() {
            known.supply = Supply { wanted: kept.documents.clone(), good: kept.documents, whole: false };
            known.standing.confirmed = Some(kept.confirmed);
            known.standing.revision = kept.revision;
        }
    }

    /// Takes a word down. Says whether there is something new to make a configuration of.
    fn note(&self, provider: &Arc<str>, word: Word, now: Timestamp) -> bool {
        let mut board = self.lock();
        let Known { supply, standing } = board.entry(provider.clone()).or_default();
        let word = match word {
            Word::Has(has) if has.documents.is_empty() && !supply.wanted.is_empty() => Word::Away(
                "it has no documents any more, which is not believed (an empty document says that none is meant)"
                    .to_owned(),
            ),
            other => other,
        };
        let reachable = !matches!(word, Word::Away(_));
        if standing.reachable != Some(reachable) {
            (standing.reachable, standing.since) = (Some(reachable), Some(now));
        }
        standing.error = None;
        match word {
            Word::Away(why) => {
                standing.error = Some(why);
                false
            }
            Word::Same => {
                standing.confirmed = Some(now);
                false
            }
            Word::Has(Has { documents, revision, whole }) => {
                standing.confirmed = Some(now);
                standing.revision = revision;
                let news = supply.wanted != documents;
                (supply.wanted, supply.whole) = (documents, whole);
                news
            }
        }
    }

    /// Takes down what became part of the running configuration. Gives back, by provider, what of that is not on disk yet.
    fn took(&self, taken: &Taken) -> Vec<(Arc<str>, kept::Kept)> {
        let mut board = self.lock();
        let mut fresh = Vec::new();
        for (name, known) in board.iter_mut() {
            let documents = taken.documents.get(name).cloned().unwrap_or_default();
            known.standing.documents = documents.len();
            known.standing.faults =
                taken.faults.iter().filter(|fault| fault.provider == *name).cloned().collect();
            let origins: Vec<_> = documents.iter().map(|document| &document.origin).collect();
            let of_this = taken
                .conflicts
                .iter()
                .filter(|one| one.file.as_ref().is_some_and(|file| origins.contains(&file)));
            known.standing.conflicts = of_this.map(crate::config::Diagnostic::line).collect();
            if known.supply.good != documents {
                known.supply.good.clone_from(&documents);
                let confirmed = known.standing.confirmed.unwrap_or_else(Timestamp::now);
                let revision = known.standing.revision.clone();
                fresh.push((name.clone(), kept::Kept { documents, confirmed, revision }));
            }
        }
        fresh
    }

    /// What became of what each provider gave last, as far as it is known.
    fn outcomes(&self, tried: Tried<'_>) -> Vec<(Arc<str>, String, Result<(), String>)> {
        let board = self.lock();
        let outcome = |(name, known): (&Arc<str>, &Known)| {
            let revision = known.standing.revision.clone()?;
            let faults: Vec<_> = known.standing.faults.iter().map(DocumentFault::why).collect();
            let outcome = match tried {
                // It is what runs.
                _ if known.supply.wanted == known.supply.good => Ok(()),
                Tried::NotYet => return None,
                Tried::Refused(why) => Err(why.to_owned()),
                Tried::Taken if faults.is_empty() => Err("it could not be taken over as it is".to_owned()),
                Tried::Taken => Err(faults.join("\n")),
            };
            Some((name.clone(), revision, outcome))
        };
        board.iter().filter_map(outcome).collect()
    }

    /// Forgets all but these.
    fn retain(&self, wanted: &[&Arc<str>]) {
        self.lock().retain(|name, _| wanted.contains(&name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(texts: &[&str]) -> Word {
        let documents = texts.iter().map(|text| Document::of("p", text, *text)).collect();
        Word::Has(Has { documents, revision: Some(texts.len().to_string()), whole: false })
    }

    fn note(board: &Board, word: Word) -> bool {
        board.note(&"p".into(), word, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn only_other_documents_are_news() {
        let board = Board::default();
        assert!(note(&board, has(&["a"])));
        assert!(!note(&board, has(&["a"])));
        assert!(!note(&board, Word::Same));
        assert!(!note(&board, Word::Away("gone".into())));
        assert!(!note(&board, has(&["a"])), "it is back with what it had");
        assert!(note(&board, has(&["a", "b"])));
        assert_eq!(board.standing("p").revision.as_deref(), Some("2"));
    }

    #[test]
    fn a_source_that_is_away_or_suddenly_empty_takes_nothing_with_it() {
        let board = Board::default();
        assert!(!note(&board, has(&[])), "it has never had any");
        note(&board, has(&["a"]));
        for word in [Word::Away("no connection".into()), has(&[])] {
            assert!(!note(&board, word));
            assert_eq!(board.supplies()["p"].wanted.len(), 1);
            let standing = board.standing("p");
            assert_eq!(standing.reachable, Some(false));
            assert!(standing.error.is_some());
            note(&board, has(&["a"]));
            assert_eq!((board.standing("p").reachable, board.standing("p").error), (Some(true), None));
        }
    }

    #[test]
    fn what_runs_is_good_from_then_on_and_kept_once() {
        let board = Board::default();
        note(&board, has(&["a", "b"]));
        let only_a = vec![Document::of("p", "a", "a")];
        let taken = Taken { documents: BTreeMap::from([("p".into(), only_a.clone())]), ..Taken::default() };
        let fresh = board.took(&taken);
        assert_eq!((fresh.len(), &fresh[0].1.documents), (1, &only_a));
        assert_eq!(board.supplies()["p"].good, only_a);
        assert!(board.took(&taken).is_empty(), "it is on disk already");
        assert_eq!(board.standing("p").documents, 1);
    }

    #[test]
    fn what_was_kept_gives_way_to_what_is_known() {
        let board = Board::default();
        let kept = |text: &str| kept::Kept {
            documents: vec![Document::of("p", "x", text)],
            confirmed: Timestamp::UNIX_EPOCH,
            revision: None,
        };
        board.begin_with(&"p".into(), kept("old"));
        assert_eq!(board.supplies()["p"].good[0].text.as_deref(), Ok("old"));
        note(&board, has(&["x"]));
        board.begin_with(&"p".into(), kept("older"));
        assert_eq!(board.supplies()["p"].wanted[0].text.as_deref(), Ok("x"));
    }

    #[test]
    fn a_provider_is_told_what_became_of_what_it_gave() {
        let (board, name) = (Board::default(), Arc::<str>::from("p"));
        let outcome = |tried| {
            board.outcomes(tried).into_iter().map(|(_, revision, outcome)| (revision, outcome)).next()
        };
        let taken = |word: Word| match word {
            Word::Has(has) => Taken { documents: [(name.clone(), has.documents)].into(), ..Taken::default() },
            _ => Taken::default(),
        };
        assert!(board.note(&name, has(&["a"]), Timestamp::now()));
        assert_eq!(outcome(Tried::NotYet), None, "nobody has tried it");
        board.took(&taken(has(&["a"])));
        assert_eq!(outcome(Tried::Taken), Some(("1".to_owned(), Ok(()))));
        board.note(&name, has(&["a", "b"]), Timestamp::now());
        assert_eq!(outcome(Tried::NotYet), None);
        assert_eq!(
            outcome(Tried::Refused("port taken")),
            Some(("2".to_owned(), Err("port taken".to_owned())))
        );
        // It gives again what runs: that is well, without anybody trying.
        board.note(&name, has(&["a"]), Timestamp::now());
        assert_eq!(outcome(Tried::NotYet), Some(("1".to_owned(), Ok(()))));
    }
}
