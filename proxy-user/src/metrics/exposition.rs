//! What there is to tell, family by family, in the form that is asked for: one of Prometheus' two text formats ([`text`]), or
//! OTLP ([`data_points`]). Who tells it knows nothing of forms.

mod data_points;
mod text;

use std::{collections::HashSet, time::SystemTime};

use crate::otlp::proto::Message;
use data_points::Times;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
    Text,
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>: names counters otherwise, and has examples.
    OpenMetrics,
}

#[derive(Debug)]
pub struct Exposition(Out);

#[derive(Debug)]
enum Out {
    Text { format: Format, text: String },
    Otlp { metrics: Message, times: Times, begun: Option<Begun> },
}

/// A metric of OTLP, of which more may come: it is written when the next one begins.
#[derive(Debug)]
struct Begun {
    name: String,
    help: String,
    kind: Kind,
    points: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever goes up, but for restarts; its name ends with `_total`.
    Counter,
    /// A counter that others than this process keep, and that goes on when this one is started anew.
    LastingCounter,
    Gauge,
    /// How often a value was at most so much; see [`Family::buckets`].
    Histogram,
}

/// How many values are in a bucket, and in no lower one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket<'a> {
    /// `None`: of the last bucket.
    pub edge: Option<f64>,
    pub count: u64,
    pub example: Option<Example<'a>>,
}

/// A value that somebody can look into.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example<'a> {
    /// In hexadecimal.
    pub trace: &'a str,
    pub value: f64,
    /// Since 1970, in seconds.
    pub at: f64,
}

/// The samples of one metric, which must stand together.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut Out,
    name: String,
    /// A scrape in which a series occurs twice is refused as a whole; the first one stands.
    told: HashSet<String>,
}

// === impl Exposition ===

impl Exposition {
    pub fn in_text(format: Format) -> Self {
        Self(Out::Text { format, text: String::new() })
    }

    /// `since`: when this process began to count.
    pub fn in_otlp(since: SystemTime, now: SystemTime) -> Self {
        Self(Out::Otlp { metrics: Message::default(), times: Times::new(since, now), begun: None })
    }

    /// Begins a metric. What it is, and in which unit, is its name's to say.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        match &mut self.0 {
            Out::Text { format, text } => text::head(text, *format, name, kind, help),
            Out::Otlp { metrics, begun, .. } => {
                end(metrics, begun.take());
                let (name, help) = (name.to_owned(), help.to_owned());
                *begun = Some(Begun { name, help, kind, points: Message::default() });
            }
        }
        Family { out: &mut self.0, name: name.to_owned(), told: HashSet::new() }
    }

    /// The text. Nothing, if it was made for OTLP.
    pub fn text(self) -> String {
        match self.0 {
            Out::Text { format, mut text } => {
                text::end(&mut text, format);
                text
            }
            Out::Otlp { .. } => String::new(),
        }
    }

    /// The fields of a `ScopeMetrics` in which metrics are. Nothing, if it was made as text.
    pub fn metrics(self) -> Message {
        match self.0 {
            Out::Text { .. } => Message::default(),
            Out::Otlp { mut metrics, begun, .. } => {
                end(&mut metrics, begun);
                metrics
            }
        }
    }
}

/// Without a data point there is no metric.
fn end(metrics: &mut Message, begun: Option<Begun>) {
    if let Some(Begun { name, help, kind, points }) = begun.filter(|begun| !begun.points.is_empty()) {
        data_points::metric(metrics, &name, &help, kind, &points);
    }
}

// === impl Family ===

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let series = text::labels(labels);
        match &mut *self.out {
            _ if self.told.contains(&series) => return,
            Out::Text { text, .. } => text::sample(text, &self.name, "", &series, value),
            Out::Otlp { times, begun, .. } => {
                if let Some(Begun { kind, points, .. }) = begun {
                    data_points::number(points, *kind, *times, labels, value);
                }
            }
        }
        self.told.insert(series);
    }

    /// A histogram: its buckets, the edges rising, and all values together.
    pub fn buckets(&mut self, labels: &[(&str, &str)], buckets: &[Bucket<'_>], sum: f64) {
        let series = text::labels(labels);
        match &mut *self.out {
            _ if self.told.contains(&series) => return,
            Out::Text { format, text } => {
                text::histogram(text, *format, &self.name, &series, buckets, sum);
            }
            Out::Otlp { times, begun, .. } => {
                if let Some(Begun { points, .. }) = begun {
                    data_points::histogram(points, *times, labels, buckets, sum);
                }
            }
        }
        self.told.insert(series);
    }
}

impl Kind {
    fn is_counter(self) -> bool {
        matches!(self, Self::Counter | Self::LastingCounter)
    }
}

#[cfg(test)]
mod tests;
