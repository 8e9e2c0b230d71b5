//! `weir apply`, `confirm` and `revert`: puts a configuration where the daemon reads its own, and takes it back.
//!
//! What runs is what is on disk: a configuration that is applied becomes the daemon's file, in one step, and the file
//! before it stays beside as `.previous`. Everything that can be refused is refused before anything is touched; what
//! can't run is taken back at once.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use super::{
    apply::Fleet,
    files::Files,
    order::{Answer, Apply, Refusal},
    state::{ControlState, OnTrial, Source},
    trial::{self, Claimed, Trial},
};
use crate::config::{self, diff};
use crate::journal::{Kind, Note};

/// When taking a configuration back has failed, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// The shortest and the longest time that a configuration may be on trial.
const TRIAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The trial that this daemon waits on, if there is one.
#[derive(Debug, Default)]
pub struct Trials(Option<Running>);

#[derive(Debug)]
struct Running {
    config: PathBuf,
    over: Instant,
}

/// The file that the daemon reads, where a configuration can be put.
pub fn place(source: &Source) -> Result<PathBuf, Refusal> {
    let refused = |why: String| Err(Refusal::Refused(why));
    match source {
        Source::Embedded => refused(format!(
            "the daemon runs its embedded default, and has no file that could be replaced: write {} and restart it",
            config::DEFAULT_PATH
        )),
        Source::Path(path) if path.is_dir() => refused(format!(
            "the daemon's configuration is the folder {}: change the files in it, and they are taken over at once",
            path.display()
        )),
        // A symbolic link stays one. What is gone for the moment has its place all the same.
        Source::Path(path) => {
            std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).or_else(|error| {
                refused(format!("the daemon's configuration {} can't be found: {error}", path.display()))
            })
        }
    }
}

/// Makes a configuration the one that runs and is on disk.
///
/// # Errors
/// When it is refused; then nothing has changed.
pub async fn apply(
    order: Apply,
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
    trials: &mut Trials,
) -> Answer {
    // 1. Everything that can be refused without having touched anything.
    let place = place(source)?;
    if let Some(on) = state.on_trial() {
        return Err(Refusal::Refused(format!(
            "{} is still on trial: `weir confirm` it or `weir revert` it first",
            on.name
        )));
    }
    let time = order.confirm_ms.map(Duration::from_millis);
    if let Some(time) = time.filter(|time| !TRIAL.contains(time)) {
        return Err(Refusal::Faulty(format!("error: a trial takes from 1s to 24h, not {time:?}")));
    }
    let Source::Path(path) = source else { unreachable!("the embedded default has no place") };
    let mut loaded =
        super::documents::try_text(path, Path::new(&order.name), &order.text, &mut fleet.providers)
            .await
            .map_err(|report| Refusal::Faulty(report.lines()))?;
    // With what was fetched for its lists: that is what would be enforced.
    state.lists.fill(&mut loaded.config);
    let unwritable = |error: io::Error| {
        Refusal::Refused(format!(
            "can't write beside {} ({error}): the configuration is put there, so weir must be allowed to",
            place.display()
        ))
    };
    let before = std::fs::read_to_string(&place).map_err(unwritable)?;
    if time.is_some() && (state.last_reload().outcome.is_err() || files.differ()) {
        return Err(Refusal::Refused(format!(
            "{} is not what runs (`weir status` says why), so there would be nothing to go back to: mend it first, or \
             apply without --confirm",
            place.display()
        )));
    }
    let running = fleet.running().load_full();
    if !order.force {
        state
            .guard
            .check(&loaded.config, Some(&running.config), order.session())
            .map_err(Refusal::Refused)?;
    }
    let changes = diff::of(&running.config, &loaded.config);

    // 2. On disk first: if the host dies from here on, it comes back with the old one or with a trial.
    let mode = trial::mode(&place);
    trial::write_whole(&trial::previous(&place), before.as_bytes(), mode).map_err(unwritable)?;
    if let Some(time) = time {
        let trial = Trial::new(order.id, order.name.clone(), time, before.clone(), trial::now());
        trial.store(&place).map_err(unwritable)?;
    }
    let installed = trial::write_whole(&place, order.text.as_bytes(), mode).map_err(unwritable);

    // 3. Then it runs, or all is as it was.
    let outcome = match installed {
        Ok(()) => {
            fleet.apply(Arc::new(loaded.config)).await.map_err(|fault| Refusal::Refused(fault.to_string()))
        }
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = outcome {
        let back = trial::write_whole(&place, before.as_bytes(), mode);
        if time.is_some() {
            let _ = std::fs::remove_file(trial::path(&place));
        }
        files.look();
        return match back {
            Ok(()) => Err(refusal),
            Err(error) => Err(Refusal::Refused(format!(
                "{refusal}. And {} could not be put back ({error}): it is kept in {}",
                place.display(),
                trial::previous(&place).display()
            ))),
        };
    }
    files.watch(&super::watched(source, &loaded.files));
    super::warn(&loaded.warnings);
    fleet.providers.took(&loaded.taken, &fleet.running().load().config.state.dir);
    state.applied(fleet.generation(), &fleet.kernel.state);
    tracing::info!(generation = fleet.generation(), name = order.name, confirm = ?time, "configuration applied");
    if let Some(time) = time {
        let message = format!("`{}` is on trial for {} s", order.name, time.as_secs());
        Note::new(Kind::TrialBegun, message).write();
        trials.begin(place.clone(), order.name.clone(), time, state);
    }
    Ok(json!({
        "generation": fleet.generation(),
        "path": place,
        "confirm_within_seconds": time.map(|time| time.as_secs_f64()),
        "warnings": loaded.warnings,
        "changes": changes,
    }))
}

/// Before a configuration is read: takes a trial back if its time is over, or if it is `unusable`. Says whether it did.
pub fn settle_at_start(source: &Source, unusable: bool) -> bool {
    let Ok(place) = place(source) else { return false };
    let settled = Claimed::of(&place).and_then(|claimed| match claimed {
        Some(claimed) if unusable || claimed.trial.left(trial::now()).is_zero() => {
            claimed.restore(&place)?;
            let name = claimed.trial.name.clone();
            claimed.end()?;
            Ok(Some(name))
        }
        _ => Ok(None),
    });
    match settled {
        Ok(Some(name)) => {
            let kept = trial::reverted(&place);
            tracing::warn!(name, kept = %kept.display(), "a configuration that nobody confirmed was taken back");
            true
        }
        Ok(None) => false,
        Err(error) => {
            let file = trial::path(&place);
            tracing::error!(file = %file.display(), %error, "a configuration is on trial, and can't be taken back");
            false
        }
    }
}

/// Ends the trial well.
///
/// # Errors
/// When there is none.
pub fn confirm(state: &ControlState, fleet: &Fleet, trials: &mut Trials) -> Answer {
    let claimed = trials.claim(state)?;
    let (name, left) = (claimed.trial.name.clone(), claimed.trial.left(trial::now()));
    claimed.end().map_err(|error| Refusal::Refused(format!("the trial can't be ended: {error}")))?;
    trials.0 = None;
    state.set_trial(None);
    tracing::info!(name, "configuration confirmed");
    Note::new(Kind::TrialConfirmed, format!("`{name}` was confirmed")).write();
    Ok(json!({ "confirmed": name, "generation": fleet.generation(), "seconds_left": left.as_secs_f64() }))
}

/// Takes the configuration on trial back: because its time is over, or because somebody said so.
///
/// # Errors
/// When there is none, or when the previous one can't run (any more); that is tried again.
pub async fn revert(
    source: &Source,
    state: &ControlState,
    fleet: &mut Fleet,
    files: &mut Files,
    trials: &mut Trials,
) -> Answer {
    let claimed = trials.claim(state)?;
    let place = place(source)?;
    let name = claimed.trial.name.clone();
    let restored = claimed.restore(&place).map_err(|error| {
        Refusal::Refused(format!(
            "the previous configuration can't be written to {}: {error}",
            place.display()
        ))
    });
    let outcome = match restored {
        Ok(()) => super::reload_unguarded(source, state, fleet, files).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = outcome {
        tracing::error!(%refusal, "the configuration on trial could not be taken back; tried again in 5 s");
        trials.again(state, refusal.to_string());
        return Err(refusal);
    }
    if let Err(error) = claimed.end() {
        tracing::warn!(%error, "the file of the trial can't be removed");
    }
    trials.0 = None;
    state.set_trial(None);
    let kept = trial::reverted(&place);
    tracing::warn!(name, generation = fleet.generation(), kept = %kept.display(), "configuration taken back");
    Note::new(Kind::TrialTakenBack, format!("`{name}` was taken back"))
        .generation(fleet.generation())
        .write();
    Ok(json!({ "reverted": name, "generation": fleet.generation(), "kept": kept }))
}

// === impl Trials ===

impl Trials {
    /// Goes on waiting on a trial that an earlier daemon left, with the time that is left of it.
    pub fn at_start(source: &Source, state: &ControlState) -> Self {
        let mut trials = Self::default();
        let Ok(place) = place(source) else { return trials };
        if let Ok(Some(trial)) = Trial::read(&place) {
            let left = trial.left(trial::now());
            tracing::warn!(
                name = trial.name,
                ?left,
                "this configuration is on trial: `weir confirm` keeps it"
            );
            trials.begin(place, trial.name, left, state);
        }
        trials
    }

    /// Resolves when the time of a trial is over. Safe to cancel.
    pub async fn over(&self) {
        match &self.0 {
            Some(running) => tokio::time::sleep_until(running.over).await,
            None => std::future::pending().await,
        }
    }

    fn begin(&mut self, config: PathBuf, name: String, left: Duration, state: &ControlState) {
        let over = Instant::now() + left;
        state.set_trial(Some(OnTrial { name, over, failed: None }));
        self.0 = Some(Running { config, over });
    }

    fn again(&mut self, state: &ControlState, why: String) {
        if let (Some(running), Some(on)) = (&mut self.0, state.on_trial()) {
            running.over = Instant::now() + AGAIN;
            state.set_trial(Some(OnTrial { failed: Some(why), ..on }));
        }
    }

    fn claim(&mut self, state: &ControlState) -> Result<Claimed, Refusal> {
        let running = self.0.as_ref().ok_or_else(|| {
            Refusal::Refused(
                "no configuration is on trial (nothing was applied with --confirm, or its time is over)"
                    .into(),
            )
        })?;
        let claimed = Claimed::of(&running.config)
            .map_err(|error| Refusal::Refused(format!("the file of the trial can't be used: {error}")))?;
        claimed.ok_or_else(|| {
            self.0 = None;
            state.set_trial(None);
            Refusal::Refused("the trial has been ended by somebody else".into())
        })
    }
}
