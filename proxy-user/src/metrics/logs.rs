//! What became of logs, spans and pushed metrics.

use super::{
    exposition::{Exposition, Kind},
    flag,
};
use crate::admin::status::StatusDocument;

pub fn tell(out: &mut Exposition, status: &StatusDocument) {
    let mut family = out.family(
        "weir_access_log_dropped_lines_total",
        Kind::Counter,
        "Lines that were dropped because the log's place could not keep up, or could not be reached.",
    );
    for log in &status.access_logs {
        family.sample(&[("log", &log.name)], log.dropped as f64);
    }
    let mut family =
        out.family("weir_access_log_failing", Kind::Gauge, "1 while the log's place takes nothing.");
    for log in &status.access_logs {
        family.sample(&[("log", &log.name)], flag(log.failing.is_some()));
    }
    let tracing = status.tracing.as_ref();
    let mut family =
        out.family("weir_tracing_sampled_requests_total", Kind::Counter, "Requests that were traced.");
    if let Some(tracing) = tracing {
        family.sample(&[], tracing.sampled as f64);
    }
    let mut family = out.family(
        "weir_tracing_spans_total",
        Kind::Counter,
        "Spans that the collector took, and those that were dropped because it could not keep up or be reached.",
    );
    if let Some(tracing) = tracing {
        family.sample(&[("outcome", "exported")], tracing.exported as f64);
        family.sample(&[("outcome", "dropped")], tracing.dropped as f64);
    }
    let mut family = out.family(
        "weir_metrics_pushes_total",
        Kind::Counter,
        "Times that the collector took these metrics (`taken`), or could not be reached or refused them (`failed`).",
    );
    if let Some(push) = &status.metrics_push {
        family.sample(&[("outcome", "taken")], push.taken as f64);
        family.sample(&[("outcome", "failed")], push.failed as f64);
    }
}
