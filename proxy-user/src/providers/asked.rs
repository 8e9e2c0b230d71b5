//! The configuration with what providers give, for commands that look at a file without a daemon: what ran last, or what
//! the sources have now.

use std::{path::Path, sync::Arc};

use super::{keeper::Keeper, kept};
use crate::{
    config::{self, Loaded, Report},
    fleet::member::Member,
};

/// What was loaded, and what could not be asked.
#[derive(Debug)]
pub struct Asked {
    pub outcome: Result<Loaded, Report>,
    /// Sentences: what is not as fresh as it should be, and why.
    pub troubles: Vec<String>,
}

/// With what ran last here.
///
/// # Errors
/// With every fault of the host's own files.
pub fn offline(path: &Path) -> Result<Loaded, Report> {
    let (supplies, _) = kept::of_host(path);
    config::load_with(path, &supplies)
}

/// Likewise, and what of it can't be believed.
#[must_use]
pub fn offline_with_troubles(path: &Path) -> Asked {
    let (supplies, troubles) = kept::of_host(path);
    Asked { outcome: config::load_with(path, &supplies), troubles }
}

/// With what the sources have now. One that doesn't answer counts with what it gave last.
pub async fn online(path: &Path) -> Asked {
    let Ok(bare) = config::load_bare(path) else {
        return Asked { outcome: config::load(path), troubles: Vec::new() };
    };
    let mut keeper = Keeper::new(Arc::default());
    keeper.member = Arc::new(Member::onlooker());
    keeper.ask_new(&bare.config).await;
    let away = |name: &Arc<str>| {
        let standing = keeper.board.standing(name);
        let instead = if keeper.board.supplies().get(name).is_some_and(|supply| !supply.good.is_empty()) {
            "what it gave last is looked at"
        } else {
            "nothing is known of its documents"
        };
        Some(format!("provider `{name}` is away, {instead}: {}", standing.error?))
    };
    let troubles = bare.config.providers.iter().filter_map(|provider| away(&provider.name)).collect();
    Asked { outcome: config::load_with(path, &keeper.board.supplies()), troubles }
}
