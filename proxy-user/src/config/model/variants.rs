//! What services are made of when they are made of services, valid. Names resolve, nothing leads to itself.

use std::{sync::Arc, time::Duration};

use super::ServiceId;
use crate::config::{default, value};

/// What stands in the place of a service's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MadeOf {
    Split(Split),
    /// The first whose servers can answer. At least one, each once.
    Failover(Vec<ServiceId>),
    Mirror(Mirror),
}

/// `split = { app = 20, old = 80 }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// At least one and at most 64, as they are written, each once; the weights' sum is not 0.
    pub variants: Vec<(ServiceId, u32)>,
    /// The name of the cookie that keeps a visitor with his variant.
    pub sticky: Option<Arc<str>>,
    /// A request whose variant can't answer goes to another one. Default true.
    pub fall_over: bool,
    /// Never of a split that has not exactly two variants.
    pub judge: Option<Judge>,
}

/// `mirror = { to = "new", share = "10%", body_limit = "64KiB", at_once = 64, timeout = "10s" }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Answers.
    pub service: ServiceId,
    /// Gets the copies; another one.
    pub to: ServiceId,
    /// In hundredths of a percent, 1 to 10,000. Default 10,000.
    pub share: u32,
    /// Default 64 KiB.
    pub body_limit: u64,
    /// Default 64.
    pub at_once: usize,
    /// Default 10 s.
    pub timeout: Duration,
}

/// `[service.NAME.judge]`. Percentages in hundredths of a percent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judge {
    /// The one that is new.
    pub variant: ServiceId,
    /// Rising, 1 to 100, the first below 100.
    pub steps: Vec<u32>,
    pub every: Duration,
    pub margin_errors: u32,
    pub margin_latency: u32,
    pub confidence: u32,
    pub min_samples: u64,
}

impl Judge {
    /// As it is where nothing else is written.
    pub fn by_default(variant: ServiceId) -> Self {
        let share = |text| value::share(text).unwrap_or_default();
        Self {
            variant,
            steps: default::JUDGE_STEPS.iter().filter_map(|step| step.parse().ok()).collect(),
            every: value::duration(default::JUDGE_EVERY).unwrap_or_default(),
            margin_errors: share(default::JUDGE_MARGIN_ERRORS),
            margin_latency: share(default::JUDGE_MARGIN_LATENCY),
            confidence: share(default::JUDGE_CONFIDENCE),
            min_samples: default::JUDGE_MIN_SAMPLES.into(),
        }
    }
}

impl MadeOf {
    /// The services that it is made of.
    pub fn parts(&self) -> Vec<ServiceId> {
        match self {
            Self::Split(split) => split.variants.iter().map(|(id, _)| *id).collect(),
            Self::Failover(parts) => parts.clone(),
            Self::Mirror(mirror) => vec![mirror.service, mirror.to],
        }
    }
}
