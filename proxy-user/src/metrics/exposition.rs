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
        let mut series = String::new();
        for (nth, (name, text)) in labels.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let _ = write!(series, "{comma}{name}=\"{}\"", escaped(text, true));
        }
        if !self.told.insert(series.clone()) {
            return;
        }
        let _ = match &*series {
            "" => writeln!(self.text, "{} {value}", self.name),
            labels => writeln!(self.text, "{}{{{labels}}} {value}", self.name),
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
    fn no_series_is_told_twice() {
        let mut out = Exposition::default();
        let mut family = out.family("weir_x", Kind::Gauge, "X.");
        family.sample(&[("a", "1")], 1.0);
        family.sample(&[("a", "1")], 2.0);
        assert_eq!(out.finish().lines().filter(|line| line.starts_with("weir_x")).count(), 1);
    }
}
