//! Reads the kernel and asks the daemon, interval after interval.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::interval::{Heard, Interval, Moment};
use crate::{
    admin::status::StatusDocument,
    cli::{Failure, admin::AdminArgs},
    kernel::{meter, sources::Sample, watch::Watcher},
};

/// How often is looked whether to go on.
const STEP: Duration = Duration::from_millis(100);

/// The gate tells of a few thousand drops a second and CPU; no more are kept.
const SAMPLES: usize = 100_000;

pub struct Gatherer {
    bpffs: PathBuf,
    admin: AdminArgs,
    watcher: Option<Watcher>,
    before: Moment,
}

impl Gatherer {
    /// The first moment is now.
    pub fn begin(bpffs: PathBuf, admin: AdminArgs) -> Self {
        let before = moment(&bpffs, &admin);
        Self { bpffs, admin, watcher: None, before }
    }

    /// Listens for as long as `every`, and tells what happened. `None`: it was not to go on.
    pub fn interval(&mut self, every: Duration, goes_on: impl Fn() -> bool) -> Option<Interval> {
        let end = self.before.at + every;
        let mut heard: Heard = Ok(Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if !goes_on() {
                return None;
            }
            match (self.listen(left.min(STEP)), &mut heard) {
                (Ok(more), Ok(samples)) => {
                    samples.extend(more.into_iter().take(SAMPLES - samples.len().min(SAMPLES)));
                }
                (Ok(_), Err(_)) => {}
                (Err(why), heard) => {
                    *heard = Err(why);
                    // Waits the time that listening would have taken.
                    std::thread::sleep(left.min(STEP));
                }
            }
        }
        let now = moment(&self.bpffs, &self.admin);
        let interval = Interval::between(&self.before, &now, heard);
        self.before = now;
        Some(interval)
    }

    fn listen(&mut self, patience: Duration) -> Result<Vec<Sample>, String> {
        if self.watcher.is_none() {
            self.watcher = Watcher::open(&self.bpffs).map_err(|fault| fault.to_string())?;
        }
        let Some(watcher) = &mut self.watcher else {
            return Err("nothing of Weir's is in the kernel".to_owned());
        };
        match watcher.wait(patience) {
            Ok(dropped) => Ok(dropped.into_iter().filter(|one| !one.shadow).map(Sample::from).collect()),
            Err(fault) => {
                self.watcher = None;
                Err(fault.to_string())
            }
        }
    }
}

fn moment(bpffs: &std::path::Path, admin: &AdminArgs) -> Moment {
    let at = Instant::now();
    let kernel = meter::read(bpffs).map_err(|fault| fault.to_string());
    Moment { at, kernel, daemon: ask(admin) }
}

fn ask(admin: &AdminArgs) -> Result<StatusDocument, String> {
    let (status, body) = admin.get("/api/v1/status").map_err(|failure| match failure {
        Failure::Failed(why) | Failure::BadConfig(why) => why,
    })?;
    if !status.is_success() {
        return Err(format!("the daemon answered {status}"));
    }
    serde_json::from_slice(&body)
        .map_err(|error| format!("the daemon's answer is not understood ({error}): is it another version?"))
}
