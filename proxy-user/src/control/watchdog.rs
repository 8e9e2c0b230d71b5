//! Takes a configuration on trial back when there is no daemon that does: a process of its own, started by
//! `weir apply --confirm` before the configuration is sent.
//!
//! The gate goes on judging by the new lists when the daemon is dead, so somebody has to be there who puts the old ones
//! back. The watchdog looks at the trial's file until that is gone (confirmed, or taken back by the daemon). When its
//! time is over and the daemon doesn't answer, it restores the file and reconciles the kernel itself.

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admin::client,
    allowlists::Board,
    config::{self, model::AdminAddr},
    kernel,
    providers::kept,
};

use super::{
    kernel_side::KernelSide,
    trial::{self, Claimed, Trial},
};

/// How often the trial is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// The daemon comes first: what it has not taken back so long after the end of the trial is the watchdog's.
const GRACE: Duration = Duration::from_secs(1);

/// The order may take so long to be followed; a trial that has not begun by then never will.
const BEGINS_WITHIN: Duration = Duration::from_secs(70);

/// What fails is tried again after this, and not for ever.
const AGAIN: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 720;

/// What a watchdog looks after.
#[derive(Debug)]
pub struct Watch {
    /// The daemon's configuration.
    pub config: PathBuf,
    /// Of the trial.
    pub id: u64,
    /// Where the daemon answers.
    pub admin: AdminAddr,
}

impl Watch {
    /// Returns when the trial is over, one way or the other.
    ///
    /// # Errors
    /// When the configuration could not be taken back.
    pub async fn run(&self, mut log: impl Write) -> Result<(), String> {
        let begun = Instant::now();
        let (mut seen, mut attempts) = (false, 0);
        loop {
            match Trial::read(&self.config) {
                Ok(Some(trial)) if trial.id == self.id => {
                    seen = true;
                    let over = trial.deadline.saturating_add(GRACE.as_millis() as i64) <= trial::now();
                    if over && !client::pings(&self.admin).await {
                        say(
                            &mut log,
                            "the time is over, and no daemon answers: taking the configuration back",
                        );
                        match self.take_back(&mut log).await {
                            Err(why) if attempts < ATTEMPTS => say(&mut log, why),
                            outcome => return outcome,
                        }
                        attempts += 1;
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Ok(_) if !seen && begun.elapsed() < BEGINS_WITHIN => {}
                Ok(_) => return Ok(()),
                Err(error) => say(&mut log, format_args!("the trial can't be read: {error}")),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn take_back(&self, mut log: impl Write) -> Result<(), String> {
        let claimed =
            Claimed::of(&self.config).map_err(|error| format!("the trial can't be used: {error}"))?;
        let Some(claimed) = claimed.filter(|claimed| claimed.trial.id == self.id) else {
            return Ok(());
        };
        claimed
            .restore(&self.config)
            .map_err(|error| format!("{} can't be written: {error}", self.config.display()))?;
        say(&mut log, format_args!("restored {}", self.config.display()));
        reconcile(&self.config, &claimed.trial.previous).await?;
        claimed.end().map_err(|error| format!("the trial's file can't be removed: {error}"))?;
        say(&mut log, "the gate judges by the previous configuration");
        Ok(())
    }
}

/// Makes the kernel enforce a configuration without a daemon.
async fn reconcile(path: &Path, text: &str) -> Result<(), String> {
    let (supplies, _) = kept::of_host(path);
    let loaded = config::load_as(path, path, text, &supplies).map_err(|report| report.lines())?;
    let mut config = loaded.config;
    // With what was fetched for its lists last, as the daemon would start with.
    Board::default().fill(&mut config);
    let config = Arc::new(config);
    let generation = match kernel::observe(&config.kernel.bpffs) {
        Ok(Some(status)) => status.generation.unwrap_or(0) + 1,
        _ => 1,
    };
    KernelSide::default().apply(&config, generation).await.map_err(|fault| fault.to_string())
}

/// Nobody may be listening any more.
fn say(log: &mut impl Write, what: impl fmt::Display) {
    let _ = writeln!(log, "{} {what}", jiff::Timestamp::now());
}
