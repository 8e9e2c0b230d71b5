//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::{collections::HashSet, fmt::Write as _};

#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever goes up, but for restarts; its name ends with `_total`.
    Counter,
    Gauge,
    /// How often a value was at most so much; see [`Family::buckets`].
    Histogram,
}

/// The samples of one metric, which must stand together.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
    /// A scrape in which a series occurs twice is refused as a whole; the first one stands.
    told: HashSet<String>,
}

impl Exposition {
    /// Begins a metric. What it is, and in which unit, is its name's to say.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false));
        Family { text: &mut self.text, name: name.to_owned(), told: HashSet::new() }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// A histogram: `(upper edge, values in this bucket alone)`, the edges rising, and all values together. The last bucket has no
    /// edge.
    pub fn buckets(&mut self, labels: &[(&str, &str)], buckets: &[(Option<f64>, u64)], sum: f64) {
        let mut up_to_here = 0;
        for (edge, count) in buckets {
            up_to_here += count;
            let edge = edge.map_or("+Inf".to_owned(), |edge| edge.to_string());
            self.line("_bucket", &[labels, &[("le", &edge)]].concat(), up_to_here as f64);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, up_to_here as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let mut series = String::new();
        for (nth, (name, text)) in labels.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let _ = write!(series, "{comma}{name}=\"{}\"", escaped(text, true));
        }
        if !self.told.insert(format!("{suffix}{series}")) {
            return;
        }
        let name = &self.name;
        let _ = match &*series {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_below_what_they_are() {
        let mut out = Exposition::default();
        out.family("weir_server_up", Kind::Gauge, "1 if it is\nup.")
            .sample(&[("service", "a\"b\\c\nd"), ("server", "10.0.0.1:80")], 1.0);
        out.family("weir_lines_total", Kind::Counter, "Lines.").sample(&[], 12_345_678_901.0);
        assert_eq!(
            out.finish(),
            "# HELP weir_server_up 1 if it is\\nup.\n# TYPE weir_server_up gauge\n\
             weir_server_up{service=\"a\\\"b\\\\c\\nd\",server=\"10.0.0.1:80\"} 1\n\
             # HELP weir_lines_total Lines.\n# TYPE weir_lines_total counter\nweir_lines_total 12345678901\n"
        );
    }

    #[test]
    fn buckets_hold_what_is_below_their_edges() {
        let mut out = Exposition::default();
        out.family("weir_wait_seconds", Kind::Histogram, "Waits.").buckets(
            &[("service", "a")],
            &[(Some(0.5), 2), (Some(1.0), 1), (None, 4)],
            9.5,
        );
        let text = out.finish();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "weir_wait_seconds_bucket{service=\"a\",le=\"0.5\"} 2",
                "weir_wait_seconds_bucket{service=\"a\",le=\"1\"} 3",
                "weir_wait_seconds_bucket{service=\"a\",le=\"+Inf\"} 7",
                "weir_wait_seconds_sum{service=\"a\"} 9.5",
                "weir_wait_seconds_count{service=\"a\"} 7",
            ]
        );
    }

    #[test]
    fn no_series_is_told_twice() {
        let mut out = Exposition::default();
        let mut family = out.family("weir_x", Kind::Gauge, "X.");
        family.sample(&[("a", "1")], 1.0);
        family.sample(&[("a", "1")], 2.0);
        assert_eq!(out.finish().lines().filter(|line| line.starts_with("weir_x")).count(), 1);
    }
}
