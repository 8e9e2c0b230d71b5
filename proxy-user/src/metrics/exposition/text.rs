//! Prometheus' text format and OpenMetrics. They differ in what a counter's head calls it, in how edges are written, in their
//! end, and in examples, which only OpenMetrics has.

use std::fmt::Write as _;

use super::{Bucket, Example, Format, Kind};

// Writing to a string can't fail: what it returns is let go throughout.

pub fn head(text: &mut String, format: Format, name: &str, kind: Kind, help: &str) {
    let name = match format {
        Format::OpenMetrics if kind.is_counter() => name.strip_suffix("_total").unwrap_or(name),
        Format::Text | Format::OpenMetrics => name,
    };
    let kind = match kind {
        Kind::Counter | Kind::LastingCounter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let help = escaped(help, format == Format::OpenMetrics);
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub fn end(text: &mut String, format: Format) {
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
}

/// `a="1",b="2"`
pub fn labels(labels: &[(&str, &str)]) -> String {
    let mut series = String::new();
    for (nth, (name, value)) in labels.iter().enumerate() {
        let comma = if nth == 0 { "" } else { "," };
        let _ = write!(series, "{comma}{name}=\"{}\"", escaped(value, true));
    }
    series
}

pub fn sample(text: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(text, "{name}{suffix} {value}"),
        labels => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

pub fn histogram(
    text: &mut String,
    format: Format,
    name: &str,
    labels: &str,
    buckets: &[Bucket<'_>],
    sum: f64,
) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut up_to_here = 0;
    for Bucket { edge, count, example } in buckets {
        up_to_here += count;
        let edge = match (edge, format) {
            (None, _) => "+Inf".to_owned(),
            (Some(edge), Format::Text) => edge.to_string(),
            // As a float always, `1.0`: so says the specification.
            (Some(edge), Format::OpenMetrics) => format!("{edge:?}"),
        };
        let _ = write!(text, "{name}_bucket{{{labels}{comma}le=\"{edge}\"}} {up_to_here}");
        if let (Some(Example { trace, value, at }), Format::OpenMetrics) = (example, format) {
            let _ = write!(text, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
        }
        text.push('\n');
    }
    sample(text, name, "_sum", labels, sum);
    sample(text, name, "_count", labels, up_to_here as f64);
}

fn escaped(text: &str, quotes: bool) -> std::borrow::Cow<'_, str> {
    if !text.contains(['\\', '\n', '"']) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            letter => escaped.push(letter),
        }
    }
    escaped.into()
}
