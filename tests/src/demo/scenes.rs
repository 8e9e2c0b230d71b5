//! The scenes, in the order in which they are played.

mod gate;
mod servers;

use super::{
    figures::{Figures, words},
    stage::Stage,
    world::World,
};

/// Plays all of them. An error breaks the story off; a fact that isn't true only spoils it.
pub fn play(stage: &mut Stage, world: &mut World, figures: &mut Figures) -> anyhow::Result<()> {
    gate::the_visitor_is_served(stage, world, figures)?;
    gate::the_stranger_is_dropped(stage, world, figures)?;

    world.start_load()?;
    let mut ledger = servers::Ledger::default();
    servers::one_is_killed(stage, world, figures)?;
    servers::both_are_killed(stage, world, figures, &mut ledger)?;
    servers::they_return(stage, world, figures, &mut ledger)?;
    servers::one_hangs(stage, world, figures)?;
    gate::the_list_is_edited(stage, world, figures)?;
    servers::the_load_is_judged(stage, world, figures, &ledger)?;

    gate::the_daemon_is_killed(stage, world, figures)?;
    gate::the_daemon_returns(stage, world, figures)
}

/// The figures at the end.
pub fn credits(stage: &mut Stage, figures: &Figures) {
    stage.scene("What it came to");
    let line = |name: &str, value: String| stage.plain(&format!("   {name:<58} {value:>14}"));
    let time = |value: Option<_>| value.map_or_else(|| "–".to_owned(), words);
    line("packets of the stranger that passed", figures.stranger_passed.to_string());
    line("packets of the stranger that the kernel dropped", figures.stranger_dropped.to_string());
    line("requests of the visitor's load", figures.requests.to_string());
    line(
        "of these failed",
        figures.failed_requests.map_or_else(|| "–".to_owned(), |failed| failed.to_string()),
    );
    line("longest wait when a server was killed", time(figures.refused_failover));
    line("longest wait when a server hung", time(figures.hang_failover));
    line("until the maintenance page, once all servers were gone", time(figures.page));
    line("until traffic was back, once servers were", time(figures.recovery));
    line("until an edited allowlist let somebody in", time(figures.reload));
    line("until it kept them out again", time(figures.unload));
    line("until the daemon answered after its restart", time(figures.restart));
}
