//! Puts a list that was fetched into force: the running configuration with that list's members, applied as a reload is.

use std::sync::Arc;

use crate::{
    allowlists::{
        judge::Diff,
        keeper::{self, News},
    },
    control::{apply::Fleet, state::ControlState},
};

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
    let (prefixes, diff) = keeper::change(&running.config.allowlists[list], &news.good);
    if diff.is_empty() {
        return Ok(diff);
    }
    let mut config = (*running.config).clone();
    config.allowlists[list].prefixes = prefixes;
    fleet.apply(Arc::new(config)).await.map_err(|fault| fault.to_string())?;
    state.renewed(&fleet.kernel.state);
    tracing::info!(generation = fleet.generation(), "allowlist `{}` changed: {diff}", news.list);
    Ok(diff)
}
