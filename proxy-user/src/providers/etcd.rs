//! `kind = "etcd"`: the documents of the generation that a fleet's store means for this host.
//!
//! All of them or none: a generation is one thing. What of it is in force, and whether a host that can't run one takes it back for
//! all, is [`crate::fleet`]'s to say; here its host meets the board of providers.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{Has, Provider, Teller, Watch};
use crate::{
    config::{documents::Document, model},
    control::trial::write_whole,
    fleet::{
        agent::{Agent, Host},
        chronicle,
        member::{Member, Outcome, Seen},
        reconcile::{MEMORY_VERSION, Memory, Reconciler},
        report::Figures,
    },
    journal::Note,
    state_file::{self, writer::WRITER},
    store::layout::Generation,
};

pub struct Store {
    pub provider: Arc<str>,
    pub source: model::Etcd,
    pub member: Arc<Member>,
}

/// This host, as the agent knows it.
struct Here {
    provider: Arc<str>,
    source: model::Etcd,
    member: Arc<Member>,
    outcomes: watch::Receiver<Option<Outcome>>,
    teller: Teller,
    /// Whether the store was there when it was last told.
    told: Option<Result<(), String>>,
    seen: Seen,
}

impl Provider for Store {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let Self { provider, source, member } = *self;
            let mut mind = Reconciler::new(source.host.to_string());
            let only_looks = member.only_looks();
            if !only_looks {
                remember(&source, &provider, &mut mind);
            }
            let reports = source.reports && !only_looks;
            let agent = Agent { address: source.address.clone(), mind, reports };
            let outcomes = member.listen(&provider);
            let here = Here {
                provider,
                source,
                member: member.clone(),
                outcomes,
                teller,
                told: None,
                seen: Seen::default(),
            };
            let ends = member.left();
            agent.run(here, ends).await;
        })
    }
}

/// Goes on where an earlier daemon was.
fn remember(source: &model::Etcd, provider: &str, mind: &mut Reconciler) {
    let path = place(source, provider);
    match state_file::read(&path, MEMORY_VERSION, |memory: &Memory| memory.version) {
        Ok(Some(memory)) => mind.remember(memory),
        Ok(None) => {}
        Err(why) => {
            let aside = state_file::set_aside(&path);
            tracing::error!("{why}: what was known of the store is read from it anew; {aside}");
        }
    }
}

fn place(source: &model::Etcd, provider: &str) -> PathBuf {
    source.state.join("fleet").join(format!("{provider}.json"))
}

impl Host for Here {
    async fn offer(&mut self, generation: &Generation) {
        let mut documents: Vec<_> = generation
            .documents
            .iter()
            .map(|document| Document::of(&self.provider, &document.name, document.text.as_str()))
            .collect();
        // As the board has what runs: the two are compared.
        documents.sort_by(|one, other| one.name.cmp(&other.name));
        if documents.is_empty() {
            // Said, rather than forgotten: none are meant.
            documents.push(Document::of(&self.provider, "nothing.toml", ""));
        }
        tracing::info!(generation = generation.generation, provider = %self.provider, "a generation came from the store");
        let revision = Some(generation.generation.to_string());
        self.teller.has(Has { documents, revision, whole: true }).await;
    }

    async fn outcome(&mut self) -> Outcome {
        loop {
            if self.outcomes.changed().await.is_err() {
                // The member outlives every provider.
                std::future::pending::<()>().await;
            }
            if let Some(outcome) = self.outcomes.borrow_and_update().clone() {
                return outcome;
            }
        }
    }

    fn figures(&mut self) -> Figures {
        self.member.figures()
    }

    fn speaks(&self) -> bool {
        self.member.speaks()
    }

    async fn seen(&mut self, seen: &Seen) {
        if self.source.reports {
            self.member.see(seen);
            if self.seen != *seen && !self.member.only_looks() {
                chronicle::news(&self.seen, seen).into_iter().for_each(Note::write);
                self.seen = seen.clone();
            }
        }
        let word = match &seen.store {
            Some(Err(why)) => Err(why.clone()),
            // Connected says nothing yet: documents do, or that there are none.
            Some(Ok(_)) if seen.nothing || matches!(self.told, Some(Err(_))) => Ok(()),
            _ => return,
        };
        if self.told.as_ref() == Some(&word) {
            return;
        }
        match &word {
            Err(why) => self.teller.away(why).await,
            Ok(()) => self.teller.same().await,
        }
        self.told = Some(word);
    }

    fn keep(&mut self, mind: &Reconciler) {
        let (path, memory) = (place(&self.source, &self.provider), mind.memory());
        WRITER.write(path.clone(), move || {
            let text = serde_json::to_vec(&memory).unwrap_or_default();
            // What stands in documents may be secret.
            let folder = path.parent().unwrap_or(&path);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            if let Err(error) = made.and_then(|()| write_whole(&path, &text, 0o600)) {
                tracing::warn!(
                    "{} can't be written: {error}: started while the store is away, this host may run what is older",
                    path.display()
                );
            }
        });
    }
}
