//! `GET /api/v1/drops`: where the packets come from that the gate drops now, estimated from a sample (see
//! [`crate::kernel::sources`]).
//!
//! There is one ring of sampled drops, and one reader of it at a time. So the daemon listens only when it is asked, and briefly; and
//! whoever asks while it listens, or soon after, gets the same answer.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::{
    control::state::ControlState,
    kernel::{
        meter,
        sources::{self, Sample, SourceRate},
        watch::Watcher,
    },
};

/// How long is listened. `weir watch` and `weir top` wait a little longer for their turn.
const LISTENS: Duration = Duration::from_millis(500);

/// An answer may be so old.
const FRESH: Duration = Duration::from_secs(2);

/// The busiest, no more.
const MOST: usize = 20;

/// The gate tells of a few thousand drops a second and CPU; no more are kept.
const SAMPLES: usize = 20_000;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DropsDocument {
    /// When this was read.
    pub at: String,
    /// How long was listened.
    pub seconds: f64,
    /// The busiest first; IPv4 by /24, IPv6 by /48.
    pub sources: Vec<SourceRate>,
    /// Why nothing could be heard.
    pub why: Option<String>,
}

static LATEST: Mutex<Option<(Instant, PathBuf, DropsDocument)>> = Mutex::const_new(None);

/// `None` while the daemon starts.
pub async fn document(state: &ControlState) -> Option<DropsDocument> {
    let bpffs = state.running()?.load().config.kernel.bpffs.clone();
    let mut latest = LATEST.lock().await;
    if let Some((at, of, known)) = &*latest
        && at.elapsed() < FRESH
        && *of == bpffs
    {
        return Some(known.clone());
    }
    let place = bpffs.clone();
    let heard = tokio::task::spawn_blocking(move || listen(&place)).await;
    let (seconds, heard) =
        heard.unwrap_or_else(|_| (0.0, Err("the gate could not be listened to".to_owned())));
    let (sources, why) = match heard {
        Ok(sources) => (sources, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let document = DropsDocument { at: super::now(), seconds, sources, why };
    *latest = Some((Instant::now(), bpffs, document.clone()));
    Some(document)
}

fn listen(bpffs: &Path) -> (f64, Result<Vec<SourceRate>, String>) {
    let began = Instant::now();
    let heard = hear(bpffs, began);
    let seconds = began.elapsed().as_secs_f64().max(1e-3);
    let ranked = heard.map(|(samples, dropped)| {
        let mut ranked = sources::rank(&samples, &dropped, seconds);
        ranked.truncate(MOST);
        ranked
    });
    (seconds, ranked)
}

fn hear(bpffs: &Path, began: Instant) -> Result<(Vec<Sample>, sources::Dropped), String> {
    let mut watcher = Watcher::open(bpffs)
        .map_err(|fault| fault.to_string())?
        .ok_or("nothing of Weir's is in the kernel")?;
    let read = || meter::read(bpffs).map_err(|fault| fault.to_string());
    let before = read()?;
    let mut samples = Vec::new();
    while let Some(left) = LISTENS.checked_sub(began.elapsed()) {
        let dropped = watcher.wait(left).map_err(|fault| fault.to_string())?;
        let room = SAMPLES - samples.len();
        samples.extend(dropped.into_iter().filter(|one| !one.shadow).map(Sample::from).take(room));
    }
    Ok((samples, sources::dropped(before.as_ref(), read()?.as_ref())))
}
