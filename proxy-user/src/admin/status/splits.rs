//! `GET /api/v1/splits`: how requests are shared out, what became of them, and what judges are at.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    control::{splits, state::ControlState},
    fleet::shared::board::Board,
    snapshot::Snapshot,
    variants::{
        MadeOf,
        figures::Summary,
        judge::{Judge, State},
        split::Split,
    },
};

#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SplitsDocument {
    pub splits: Vec<SplitStatus>,
    pub mirrors: Vec<MirrorStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SplitStatus {
    pub name: String,
    /// The weights were set at run time.
    pub overridden: bool,
    /// The host of the fleet at which it was switched, if others were told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub variants: Vec<VariantStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VariantStatus {
    pub name: String,
    pub weight: u32,
    /// What the configuration says.
    pub configured: u32,
    /// One of its servers may get work.
    pub can_answer: bool,
    /// The last minute, give or take ten seconds.
    pub last_minute: Summary,
    pub last_5_minutes: Summary,
    /// Since the daemon began, or since the variant is in the split.
    pub all: Summary,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JudgeStatus {
    /// `running`, `finished`, `went_back` or `stopped`.
    pub state: String,
    /// The new variant.
    pub variant: String,
    pub steps: Vec<u32>,
    /// In a sentence.
    pub told: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MirrorStatus {
    pub name: String,
    pub service: String,
    pub to: String,
    /// Of the copies that were sent.
    pub copies: Summary,
    /// Not sent, since too many were under way or their request broke off.
    pub dropped: u64,
    /// Not sent, since the body was too long or of unknown length.
    pub too_long: u64,
}

/// `None` while the daemon starts.
pub fn document(state: &ControlState) -> Option<SplitsDocument> {
    let (snapshot, now) = (state.running()?.load_full(), Instant::now());
    let mirrors = snapshot.services.iter().filter_map(|service| match &service.made_of {
        Some(MadeOf::Mirror(mirror)) => Some(MirrorStatus {
            name: service.name.to_string(),
            service: mirror.service.name.to_string(),
            to: mirror.to.name.to_string(),
            copies: mirror.counters.figures.counted().summary(),
            dropped: mirror.counters.dropped.load(Ordering::Relaxed),
            too_long: mirror.counters.too_long.load(Ordering::Relaxed),
        }),
        _ => None,
    });
    Some(SplitsDocument { splits: all(&snapshot, &state.shared, now), mirrors: mirrors.collect() })
}

pub fn all(snapshot: &Snapshot, board: &Board, now: Instant) -> Vec<SplitStatus> {
    let with_origin = |split: &Split| {
        let status = of(split, snapshot, now);
        let from = board.origin(&format!("splits/{}", split.name)).filter(|_| status.overridden);
        SplitStatus { from, ..status }
    };
    splits::all(snapshot).map(with_origin).collect()
}

pub fn of(split: &Split, snapshot: &Snapshot, now: Instant) -> SplitStatus {
    let weights = split.weights();
    let variants = split.variants.iter().enumerate().map(|(index, variant)| {
        let within = |minutes: u64| variant.figures.within(Duration::from_secs(60 * minutes), now).summary();
        VariantStatus {
            name: variant.service.name.to_string(),
            weight: weights.each[index],
            configured: split.configured[index],
            can_answer: variant.service.can_answer(),
            last_minute: within(1),
            last_5_minutes: within(5),
            all: variant.figures.counted().summary(),
        }
    });
    SplitStatus {
        name: split.name.to_string(),
        overridden: weights.overridden,
        from: None,
        variants: variants.collect(),
        judge: snapshot.splits.of(&split.name).and_then(|kept| kept.judge).map(|judge| self::judge(&judge)),
    }
}

fn judge(judge: &Judge) -> JudgeStatus {
    let state = match judge.state {
        State::Running => "running",
        State::Finished { .. } => "finished",
        State::WentBack { .. } => "went_back",
        State::Stopped { .. } => "stopped",
    };
    JudgeStatus {
        state: state.to_owned(),
        variant: judge.plan.variant.clone(),
        steps: judge.plan.steps.clone(),
        told: judge.told(Timestamp::now()),
    }
}
