//! What becomes of access logs, of spans and of pushed metrics.

use serde::{Deserialize, Serialize};

use crate::{control::state::ControlState, snapshot::Snapshot};

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AccessLogStatus {
    pub name: String,
    /// As it is written: `stdout`, a path, `syslog+tcp://…`.
    pub to: String,
    /// Lines that its place could not keep up with.
    pub dropped: u64,
    /// Why it takes nothing just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TracingStatus {
    pub endpoint: String,
    /// Requests.
    pub sampled: u64,
    /// Spans.
    pub exported: u64,
    pub dropped: u64,
    /// Why the collector takes nothing just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PushStatus {
    pub endpoint: String,
    /// Pushes that the collector took.
    pub taken: u64,
    /// And those that it did not.
    pub failed: u64,
    /// Why it takes nothing just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

pub fn of(snapshot: &Snapshot) -> Vec<AccessLogStatus> {
    let status = |output: &crate::access_log::outputs::Output| AccessLogStatus {
        name: output.name().to_owned(),
        to: output.place(),
        dropped: output.sink.dropped(),
        failing: output.sink.failing(),
    };
    snapshot.access_logs.outputs.iter().map(status).collect()
}

pub fn tracing(snapshot: &Snapshot) -> Option<TracingStatus> {
    let tracer = snapshot.tracer.as_ref()?;
    Some(TracingStatus {
        endpoint: snapshot.config.tracing.as_ref()?.collector.endpoint.to_string(),
        sampled: tracer.sampled(),
        exported: tracer.exported(),
        dropped: tracer.dropped(),
        failing: tracer.failing(),
    })
}

/// What should not stay as it is.
pub fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let logs = of(snapshot).into_iter().filter_map(|log| {
        let why = log.failing?;
        Some(format!("access log `{}`: {} takes nothing: {why}", log.name, log.to))
    });
    let spans =
        tracing(snapshot).and_then(|tracing| Some(format!("spans can't be sent: {}", tracing.failing?)));
    logs.chain(spans).collect()
}

pub fn pushed(state: &ControlState, snapshot: &Snapshot) -> Option<PushStatus> {
    let push = snapshot.config.metrics.as_ref()?;
    Some(PushStatus {
        endpoint: push.collector.endpoint.to_string(),
        taken: state.pushes.taken(),
        failed: state.pushes.failed(),
        failing: state.pushes.failing(),
    })
}

pub fn push_warning(state: &ControlState, snapshot: &Snapshot) -> Option<String> {
    let why = pushed(state, snapshot)?.failing?;
    Some(format!("metrics can't be pushed: {why}"))
}
