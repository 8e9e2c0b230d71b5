//! What is told, in each form.

use super::*;

fn text(format: Format, tell: impl FnOnce(&mut Exposition)) -> String {
    let mut out = Exposition::in_text(format);
    tell(&mut out);
    out.text()
}

fn wait(out: &mut Exposition) {
    let example = Example { trace: "4bf92f3577b34da6a3ce929d0e0e4736", value: 0.75, at: 1_700_000_000.5 };
    let bucket = |edge, count| Bucket { edge, count, example: None };
    let traced = Bucket { example: Some(example), ..bucket(Some(1.0), 1) };
    let buckets = [bucket(Some(0.5), 2), traced, bucket(None, 4)];
    out.family("weir_wait_seconds", Kind::Histogram, "Waits.").buckets(&[("service", "a")], &buckets, 9.5);
}

#[test]
fn samples_stand_below_what_they_are() {
    let text = text(Format::Text, |out| {
        out.family("weir_server_up", Kind::Gauge, "1 if it is\n\"up\".")
            .sample(&[("service", "a\"b\\c\nd"), ("server", "10.0.0.1:80")], 1.0);
        out.family("weir_lines_total", Kind::Counter, "Lines.").sample(&[], 12_345_678_901.0);
    });
    assert_eq!(
        text,
        "# HELP weir_server_up 1 if it is\\n\"up\".\n# TYPE weir_server_up gauge\n\
         weir_server_up{service=\"a\\\"b\\\\c\\nd\",server=\"10.0.0.1:80\"} 1\n\
         # HELP weir_lines_total Lines.\n# TYPE weir_lines_total counter\nweir_lines_total 12345678901\n"
    );
}

#[test]
fn open_metrics_name_counters_without_their_ending_and_have_an_end() {
    let text = text(Format::OpenMetrics, |out| {
        out.family("weir_lines_total", Kind::LastingCounter, "\"Lines\".").sample(&[("log", "a")], 7.0);
    });
    assert_eq!(
        text,
        "# HELP weir_lines \\\"Lines\\\".\n# TYPE weir_lines counter\nweir_lines_total{log=\"a\"} 7\n# EOF\n"
    );
}

#[test]
fn buckets_hold_what_is_below_their_edges() {
    let text = text(Format::Text, wait);
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
fn a_bucket_has_its_example_in_open_metrics_alone() {
    let text = text(Format::OpenMetrics, wait);
    let example = "weir_wait_seconds_bucket{service=\"a\",le=\"1.0\"} 3 \
                   # {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 0.75 1700000000.500\n";
    assert!(text.contains(example), "{text}");
    assert_eq!(text.matches(" # {").count(), 1, "{text}");
}

#[test]
fn no_series_is_told_twice() {
    let text = text(Format::Text, |out| {
        let mut family = out.family("weir_x", Kind::Gauge, "X.");
        family.sample(&[("a", "1")], 1.0);
        family.sample(&[("a", "1")], 2.0);
    });
    assert_eq!(text.lines().filter(|line| line.starts_with("weir_x")).count(), 1);
}

#[test]
fn a_metric_without_samples_is_no_metric_of_otlp() {
    let now = SystemTime::now();
    let mut out = Exposition::in_otlp(now, now);
    out.family("weir_x", Kind::Gauge, "X.");
    assert!(out.metrics().is_empty());
    let mut out = Exposition::in_otlp(now, now);
    out.family("weir_x", Kind::Gauge, "X.").sample(&[], 1.0);
    assert!(!out.metrics().is_empty());
}
