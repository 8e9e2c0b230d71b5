//! Metrics as OTLP has them: data points, gathered by metric. Sums are cumulative, and names are those of the text formats, so
//! that one page describes both; a collector that writes them for Prometheus leaves a `_total` that is there alone.
//!
//! The numbers are those of `opentelemetry/proto/metrics/v1/metrics.proto`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Bucket, Example, Kind};
use crate::otlp::{self, proto::Message};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: i64 = 2;

/// In nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    since: u64,
    now: u64,
}

impl Times {
    pub fn new(since: SystemTime, now: SystemTime) -> Self {
        let nanos = |at: SystemTime| {
            let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
        };
        Self { since: nanos(since), now: nanos(now) }
    }

    /// When it was counted, and since when. What others keep has begun before this process, nobody knows when: that is left out.
    fn write(self, point: &mut Message, kind: Kind) {
        if matches!(kind, Kind::Counter | Kind::Histogram) {
            point.fixed_64(2, self.since);
        }
        point.fixed_64(3, self.now);
    }
}

/// A `NumberDataPoint`.
pub fn number(points: &mut Message, kind: Kind, times: Times, labels: &[(&str, &str)], value: f64) {
    points.message(1, |point| {
        labels.iter().for_each(|(name, value)| otlp::text(point, 7, name, value));
        times.write(point, kind);
        point.double(4, value);
    });
}

/// A `HistogramDataPoint`.
pub fn histogram(
    points: &mut Message,
    times: Times,
    labels: &[(&str, &str)],
    buckets: &[Bucket<'_>],
    sum: f64,
) {
    points.message(1, |point| {
        labels.iter().for_each(|(name, value)| otlp::text(point, 9, name, value));
        times.write(point, Kind::Histogram);
        point.fixed_64(4, buckets.iter().map(|bucket| bucket.count).sum());
        point.double(5, sum);
        point.packed_fixed_64(6, buckets.iter().map(|bucket| bucket.count));
        let edges: Vec<f64> = buckets.iter().filter_map(|bucket| bucket.edge).collect();
        point.packed_doubles(7, edges.into_iter());
        for Example { trace, value, at } in buckets.iter().filter_map(|bucket| bucket.example) {
            point.message(8, |exemplar| {
                exemplar.fixed_64(2, (at * 1e9) as u64);
                exemplar.double(3, value);
                exemplar.bytes(5, &u128::from_str_radix(trace, 16).unwrap_or_default().to_be_bytes());
            });
        }
    });
}

/// Adds a `Metric` to a `ScopeMetrics`.
pub fn metric(metrics: &mut Message, name: &str, help: &str, kind: Kind, points: &Message) {
    metrics.message(2, |metric| {
        metric.text(1, name);
        metric.text(2, help);
        if let Some(unit) = unit(name) {
            metric.text(3, unit);
        }
        let field = match kind {
            Kind::Gauge => 5,
            Kind::Counter | Kind::LastingCounter => 7,
            Kind::Histogram => 9,
        };
        metric.message(field, |data| {
            data.append(points);
            if kind != Kind::Gauge {
                data.number(2, CUMULATIVE);
            }
            if kind.is_counter() {
                data.number(3, 1);
            }
        });
    });
}

/// As UCUM writes it. What is counted has none.
fn unit(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    if name.ends_with("_seconds") {
        Some("s")
    } else if name.ends_with("_bytes") {
        Some("By")
    } else {
        None
    }
}
