//! Who reads a page, and how: by what the request says that it accepts. Asked before the request's fields travel on to a
//! server, and judged only when there is something to read.

use http::{HeaderMap, HeaderValue, header};

use crate::glance::Glance;

/// So many elements of a field are looked at: browsers send a handful, and a page must stay cheap in any flood.
const MOST: usize = 32;

/// What the client would rather read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taste {
    Html,
    Json,
    Text,
    /// gRPC clients read the outcome from a header and take everything else for a broken transport.
    Grpc,
    /// It doesn't say.
    Any,
}

/// Cheap to make: references to what the request has.
#[derive(Debug, Default)]
pub struct Reader {
    /// The content type of a gRPC call.
    grpc: Option<HeaderValue>,
    accept: Option<HeaderValue>,
    languages: Option<HeaderValue>,
}

// === impl Reader ===

impl Reader {
    pub fn of(asked: &HeaderMap) -> Self {
        Self::seen(&Glance::over(asked))
    }

    pub fn seen(asked: &Glance<'_>) -> Self {
        let of_grpc = |kind: &&HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        Self {
            grpc: asked.content_type.filter(of_grpc).cloned(),
            accept: asked.accept.cloned(),
            languages: asked.accept_language.cloned(),
        }
    }

    pub fn taste(&self) -> Taste {
        if self.grpc.is_some() {
            return Taste::Grpc;
        }
        let (mut html, mut json, mut text) = (0, 0, 0);
        for (kind, quality) in preferences(self.accept.as_ref()) {
            let liked = match kind {
                "text/html" | "application/xhtml+xml" => &mut html,
                "text/plain" => &mut text,
                kind if kind.ends_with("/json") || kind.ends_with("+json") => &mut json,
                _ => continue,
            };
            *liked = quality.max(*liked);
        }
        match (html, json, text) {
            (0, 0, 0) => Taste::Any,
            _ if html >= json && html >= text => Taste::Html,
            _ if json >= text => Taste::Json,
            _ => Taste::Text,
        }
    }

    /// The content type of its gRPC call.
    pub fn grpc(&self) -> Option<&HeaderValue> {
        self.grpc.as_ref()
    }

    /// What to tell a service of one's own of it.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let fields = [(header::ACCEPT, &self.accept), (header::ACCEPT_LANGUAGE, &self.languages)];
        for (name, value) in fields {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }

    /// The place of the language that it likes best; `None`: none of them.
    pub fn language(&self, known: &[&str]) -> Option<usize> {
        let mut best = (0, None);
        for (wanted, quality) in preferences(self.languages.as_ref()) {
            let fits = |known: &&str| speaks(known, wanted);
            if quality > best.0
                && let Some(found) = known.iter().position(fits)
            {
                best = (quality, Some(found));
            }
        }
        best.1
    }
}

/// `de` serves who wants `de-AT`, and `de-AT` who wants `de`; never `de-CH` who wants `de-AT`.
fn speaks(known: &str, wanted: &str) -> bool {
    let within = |long: &str, short: &str| {
        long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
            && long[short.len()..].chars().next().is_none_or(|next| next == '-')
    };
    within(known, wanted) || within(wanted, known)
}

/// The elements of a field like `Accept`, with their quality in thousandths.
fn preferences(field: Option<&HeaderValue>) -> impl Iterator<Item = (&str, u16)> {
    let text = field.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').take(MOST).filter_map(|element| {
        let mut parts = element.split(';');
        let name = parts.next()?.trim();
        let quality = parts.find_map(|part| part.trim().strip_prefix("q=")).map_or(1000, quality);
        (!name.is_empty() && quality > 0).then_some((name, quality))
    })
}

fn quality(text: &str) -> u16 {
    // It has at most three digits behind the point; anything else is 0.
    let quality: f32 = text.trim().parse().unwrap_or(0.0);
    if (0.0..=1.0).contains(&quality) { (quality * 1000.0) as u16 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: header::HeaderName, value: &'static str) -> Reader {
        Reader::of(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn browsers_want_html_programs_json_and_terminals_text() {
        for (value, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Taste::Html),
            ("text/html,application/json;q=0.9", Taste::Html),
            ("text/html, application/json", Taste::Html),
            ("text/html;q=0.5, application/json", Taste::Json),
            ("application/json, text/plain, */*", Taste::Json),
            ("application/vnd.api+json", Taste::Json),
            ("application/json;q=0, text/html", Taste::Html),
            ("text/plain", Taste::Text),
            ("*/*", Taste::Any),
            ("image/avif,image/webp", Taste::Any),
            ("text/html;q=7", Taste::Any),
            (";;,,q=;q=1", Taste::Any),
        ] {
            assert_eq!(reader(header::ACCEPT, value).taste(), expected, "{value}");
        }
        assert_eq!(Reader::default().taste(), Taste::Any);
        assert_eq!(reader(header::CONTENT_TYPE, "application/grpc+proto").taste(), Taste::Grpc);
        assert_eq!(reader(header::CONTENT_TYPE, "text/plain; application/grpc").taste(), Taste::Any);
    }

    #[test]
    fn the_language_that_is_liked_best_is_taken() {
        for (value, expected) in [
            ("de-AT,de;q=0.9,en;q=0.8", Some(1)),
            ("fr, en;q=0.1", Some(0)),
            ("DE", Some(1)),
            ("pt", Some(2)),
            ("pt-PT", None),
            ("fr", None),
            ("de;q=0", None),
            ("*", None),
            ("d", None),
        ] {
            let best = reader(header::ACCEPT_LANGUAGE, value).language(&["en", "de", "pt-BR"]);
            assert_eq!(best, expected, "{value}");
        }
        assert_eq!(Reader::default().language(&["en"]), None);
    }
}
