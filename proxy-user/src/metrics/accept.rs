//! Which text format a scrape is answered in: what `Accept` likes best of those that there are. Prometheus asks for OpenMetrics
//! first, with the older format behind it; people with curl ask for nothing, and get the older one.

use http::{HeaderMap, header};

use super::Format;

/// Of several that are liked alike, the older one.
pub fn wanted(headers: &HeaderMap) -> Format {
    let (mut text, mut open) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for media in values.flat_map(|value| value.split(',')) {
        let mut parts = media.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let (mut likes, mut known) = (1.0, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match &*name.trim().to_ascii_lowercase() {
                "q" => likes = value.trim().parse().unwrap_or(0.0),
                "version" => known = matches!(value.trim(), "0.0.1" | "1.0.0" | "0.0.4"),
                _ => {}
            }
        }
        let place = match &*kind.to_ascii_lowercase() {
            "application/openmetrics-text" if known => &mut open,
            "text/plain" | "text/*" | "*/*" => &mut text,
            _ => continue,
        };
        *place = place.max(likes);
    }
    if open > text { Format::OpenMetrics } else { Format::Text }
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_liked_best_is_given() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            // Prometheus 2.42, and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", Format::Text),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Format::Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", Format::Text),
            ("application/openmetrics-text;q=nonsense", Format::Text),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(wanted(&headers), expected, "{accept}");
        }
    }
}
