//! Loading with what providers give: at the start, at a reload, and when one of them has news.

use std::{fmt::Display, path::Path, sync::Arc};

use crate::{
    config::{self, Loaded, Report, model::Config},
    control::state::Source,
    providers::{
        Board,
        keeper::{self, Keeper},
    },
};

/// As at every start: with what is on disk of providers. Where that isn't enough, with as much of the host's own files as
/// says who Weir runs as and where it may write: the rest has to wait for the providers ([`ask`]).
///
/// # Errors
/// With every fault, when the host's own files are faulty.
pub fn first(source: &Source, board: &Board) -> Result<Loaded, Report> {
    let Source::Path(path) = source else { return Ok(config::embedded_default()) };
    let bare = config::load_bare(path);
    for (config, provider) in
        bare.iter().flat_map(|bare| bare.config.providers.iter().map(|one| (&bare.config, one)))
    {
        keeper::begin(board, provider, &config.state.dir);
    }
    let loaded = load(source, board);
    match (loaded, bare) {
        (Err(_), Ok(bare)) if !bare.config.providers.is_empty() => Ok(bare),
        (loaded, _) => loaded,
    }
}

/// What a host starts with that can't start with what its providers have now, though it is valid: a port may be taken here.
/// What comes from elsewhere must not keep it from starting. `None`: there is nothing else.
pub fn last_good(source: &Source, board: &Board, why: &dyn Display) -> Option<Loaded> {
    let Source::Path(path) = source else { return None };
    let loaded = config::load_with(path, &board.last_good()?).ok()?;
    tracing::error!(
        "with what providers have now this host can't start, so it starts with what they had: {why}"
    );
    Some(loaded)
}

/// The whole configuration, with what is known of providers.
///
/// # Errors
/// With every fault.
pub fn load(source: &Source, board: &Board) -> Result<Loaded, Report> {
    match source {
        Source::Embedded => Ok(config::embedded_default()),
        Source::Path(path) => config::load_with(path, &board.supplies()),
    }
}

/// In the place of what runs: a certificate that is being written just now holds nothing else up.
///
/// # Errors
/// With every fault.
fn load_again(source: &Source, board: &Board, running: &Arc<Config>) -> Result<Loaded, Report> {
    match source {
        Source::Embedded => Ok(config::embedded_default()),
        Source::Path(path) => config::load_again(path, &board.supplies(), running.clone()),
    }
}

/// Asks the providers that what was loaded (or would have been, had they been asked: `bare`) names and that nobody has asked
/// yet. Says whether there were any: then it is worth loading again.
pub async fn ask(
    outcome: &Result<Loaded, Report>,
    bare: impl FnOnce() -> Result<Loaded, Report>,
    keeper: &mut Keeper,
) -> bool {
    match outcome {
        Ok(loaded) => keeper.ask_new(&loaded.config).await,
        Err(_) => match bare() {
            Ok(bare) => keeper.ask_new(&bare.config).await,
            Err(_) => false,
        },
    }
}

/// Reads the host's own files anew, asks providers that nobody has asked yet, and loads all of it in the place of what runs.
///
/// # Errors
/// With every fault.
pub async fn reload(source: &Source, keeper: &mut Keeper, running: &Arc<Config>) -> Result<Loaded, Report> {
    let outcome = load_again(source, &keeper.board, running);
    let bare = || match source {
        Source::Embedded => Ok(config::embedded_default()),
        Source::Path(path) => config::load_bare(path),
    };
    if ask(&outcome, bare, keeper).await { load_again(source, &keeper.board, running) } else { outcome }
}

/// What would be if `text` stood in the file `path`.
///
/// # Errors
/// With every fault.
pub async fn try_text(path: &Path, name: &Path, text: &str, keeper: &mut Keeper) -> Result<Loaded, Report> {
    let outcome = config::load_as(path, name, text, &keeper.board.supplies());
    let bare = || config::load_bare_as(path, name, text);
    if ask(&outcome, bare, keeper).await {
        config::load_as(path, name, text, &keeper.board.supplies())
    } else {
        outcome
    }
}
