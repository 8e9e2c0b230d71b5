//! Puts a list that was fetched into force: the running configuration with that list's members, applied as a reload is.
//! And has lists fetched when that is ordered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    allowlists::{
        Board, NoAnswer, Outcome, Terms,
        judge::Diff,
        keeper::{self, News},
    },
    control::{
        apply::Fleet,
        guard::Session,
        order::{Answer, RefreshAllowlists, Refusal},
        state::ControlState,
    },
    journal::{Kind, Note},
};

/// What came of a refresh that was ordered: the verb's answer.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Refreshed {
    pub lists: Vec<RefreshedList>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RefreshedList {
    pub name: String,
    pub added: usize,
    pub removed: usize,
    /// One line: what changed, that nothing did, or why the list could not be refreshed.
    pub outcome: String,
    pub ok: bool,
}

/// Applies the news, and answers the task that they come from.
pub async fn take(news: News, fleet: &mut Fleet, state: &ControlState) {
    let outcome = apply(&news, fleet, state).await;
    if outcome.is_ok() {
        state.lists.took(&news.list, news.good);
    }
    // The task may have ended since: the configuration that wanted it is gone.
    let _ = news.answer.send(outcome);
}

async fn apply(news: &News, fleet: &mut Fleet, state: &ControlState) -> Result<Diff, String> {
    let running = fleet.running().load_full();
    let list = running.config.allowlists.iter().position(|list| {
        list.name == news.list && list.fetch.as_ref().is_some_and(|fetch| fetch.source == news.good.source)
    });
    let list = list.ok_or("the configuration has changed meanwhile")?;
    // Off this thread, on which servers are probed: a list may have a million prefixes.
    let (before, good) = (running.clone(), news.good.clone());
    let change =
        tokio::task::spawn_blocking(move || keeper::change(&before.config.allowlists[list], &good)).await;
    let (prefixes, diff) = change.map_err(|error| error.to_string())?;
    if diff.is_empty() {
        return Ok(diff);
    }
    let mut config = (*running.config).clone();
    config.allowlists[list].prefixes = prefixes;
    let config = Arc::new(config);
    if !news.terms.force {
        let (guard, next, operator) = (state.guard.clone(), config.clone(), news.terms.operator);
        let checked =
            tokio::task::spawn_blocking(move || guard.check_list(&next, &running.config, operator)).await;
        checked.map_err(|error| error.to_string())??;
    }
    fleet.replace(config).await.map_err(|fault| fault.to_string())?;
    state.kernel_is(&fleet.kernel.state);
    tracing::info!(generation = fleet.generation(), "allowlist `{}` changed: {diff}", news.list);
    let message = format!("allowlist `{}` changed: {diff}", news.list);
    Note::new(Kind::AllowlistChanged, message).allowlist(&*news.list).generation(fleet.generation()).write();
    Ok(diff)
}

/// Has lists fetched now, all at the same time, and tells what came of it.
pub async fn refresh(what: RefreshAllowlists, board: Arc<Board>, answer: oneshot::Sender<Answer>) {
    let names: Vec<Arc<str>> = match &what.list {
        Some(name) => vec![name.as_str().into()],
        None => board.fetched(),
    };
    let terms = Terms {
        accept_shrunken: what.accept_shrunken,
        force: what.force,
        operator: what.ssh.as_deref().and_then(Session::from_ssh),
    };
    let asked = names.iter().map(|name| board.ask(name, terms));
    let outcomes = futures_util::future::join_all(asked).await;
    let lists: Result<Vec<_>, Refusal> =
        names.iter().zip(outcomes).map(|(name, outcome)| refreshed(name, outcome)).collect();
    // Whoever asked may have gone away.
    let _ = answer.send(lists.map(|lists| serde_json::json!(Refreshed { lists })));
}

fn refreshed(
    name: &str,
    outcome: Result<Result<Outcome, String>, NoAnswer>,
) -> Result<RefreshedList, Refusal> {
    let outcome = outcome.map_err(|no| match no {
        NoAnswer::NotFetched => Refusal::Refused(format!(
            "allowlist `{name}` is not fetched: there is none of that name with a `url` that an entrypoint uses"
        )),
        NoAnswer::Gone => Refusal::Busy(format!("allowlist `{name}` changed its source meanwhile: try again")),
    })?;
    let mut list =
        RefreshedList { name: name.to_owned(), added: 0, removed: 0, outcome: String::new(), ok: true };
    match outcome {
        Ok(Outcome::Unchanged) => list.outcome = "unchanged".to_owned(),
        Ok(Outcome::Changed(diff)) => {
            (list.added, list.removed) = (diff.added.len(), diff.removed.len());
            list.outcome = diff.to_string();
        }
        Err(why) => (list.ok, list.outcome) = (false, why),
    }
    Ok(list)
}
