//! A page's text, cut at its variables so that filling it in is copying. What comes from outside is text there, never
//! markup.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;

/// What an author may write between `{{` and `}}`.
pub const KNOWN: [(&str, Variable); 7] = [
    ("request_id", Variable::RequestId),
    ("retry_after", Variable::RetryAfter),
    ("refresh", Variable::Refresh),
    ("host", Variable::Host),
    ("status", Variable::Status),
    ("reason", Variable::Reason),
    ("time", Variable::Time),
];

/// What only built-in pages have: their words depend on the status.
const OWN: [(&str, Variable); 2] = [("own_title", Variable::Title), ("own_text", Variable::Text)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    RequestId,
    RetryAfter,
    /// After so many seconds the page may ask again by itself.
    Refresh,
    Host,
    Status,
    Reason,
    Time,
    Title,
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Bytes),
    Variable(Variable),
}

/// A variable that no page has.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    pub name: String,
    /// Of the file, from 1.
    pub line: usize,
}

/// What the variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub request_id: &'a [u8],
    pub retry_after: u64,
    pub refresh: u64,
    pub host: &'a [u8],
    pub status: StatusCode,
    pub at: SystemTime,
    pub title: &'a str,
    pub text: &'a str,
}

// === impl Template ===

impl Template {
    /// What it doesn't know stays as it stands there; [`unknown`] finds it beforehand.
    pub fn new(html: &Bytes) -> Self {
        let mut pieces = Vec::new();
        let mut from = 0;
        for found in found(html) {
            let Some(variable) = variable(found.name, KNOWN.iter().chain(&OWN)) else { continue };
            pieces.push(Piece::Text(html.slice(from..found.from)));
            pieces.push(Piece::Variable(variable));
            from = found.to;
        }
        pieces.push(Piece::Text(html.slice(from..)));
        Self(pieces.into())
    }

    pub fn fill(&self, values: &Values<'_>) -> Bytes {
        let mut html = BytesMut::with_capacity(8 * 1024);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => html.extend_from_slice(text),
                Piece::Variable(variable) => values.put(*variable, &mut html),
            }
        }
        html.freeze()
    }
}

/// The first variable that no author may write.
pub fn unknown(html: &[u8]) -> Option<Unknown> {
    found(html).find(|found| variable(found.name, &KNOWN).is_none()).map(|found| Unknown {
        name: String::from_utf8_lossy(found.name).into_owned(),
        line: 1 + html[..found.from].iter().filter(|byte| **byte == b'\n').count(),
    })
}

struct Found<'a> {
    name: &'a [u8],
    from: usize,
    to: usize,
}

/// All that looks like a variable: a name between double braces. Braces around anything else are the author's own.
fn found(html: &[u8]) -> impl Iterator<Item = Found<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(from) = memchr::memmem::find(&html[at..], b"{{").map(|offset| at + offset) {
            let inner = &html[from + 2..];
            let name_like = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b' ');
            let end = inner.iter().position(|byte| !name_like(byte)).unwrap_or(inner.len());
            let name = inner[..end].trim_ascii();
            if inner[end..].starts_with(b"}}") && !name.is_empty() && !name.contains(&b' ') {
                at = from + 2 + end + 2;
                return Some(Found { name, from, to: at });
            }
            at = from + 1;
        }
        None
    })
}

fn variable<'a>(
    name: &[u8],
    among: impl IntoIterator<Item = &'a (&'static str, Variable)>,
) -> Option<Variable> {
    among.into_iter().find(|(known, _)| known.as_bytes() == name).map(|(_, variable)| *variable)
}

// === impl Values ===

impl Values<'_> {
    fn put(&self, variable: Variable, html: &mut BytesMut) {
        let mut number = itoa::Buffer::new();
        match variable {
            Variable::RequestId => escape_into(self.request_id, html),
            Variable::RetryAfter => html.extend_from_slice(number.format(self.retry_after).as_bytes()),
            Variable::Refresh => html.extend_from_slice(number.format(self.refresh).as_bytes()),
            Variable::Host => escape_into(self.host, html),
            Variable::Status => html.extend_from_slice(self.status.as_str().as_bytes()),
            Variable::Reason => {
                escape_into(self.status.canonical_reason().unwrap_or_default().as_bytes(), html);
            }
            Variable::Time => {
                let at = Timestamp::try_from(self.at).unwrap_or(Timestamp::UNIX_EPOCH);
                html.extend_from_slice(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().as_bytes());
            }
            Variable::Title => escape_into(self.title.as_bytes(), html),
            Variable::Text => escape_into(self.text.as_bytes(), html),
        }
    }
}

/// Request ids and hosts may come from anybody.
fn escape_into(text: &[u8], html: &mut BytesMut) {
    for &byte in text {
        match byte {
            b'<' => html.extend_from_slice(b"&lt;"),
            b'>' => html.extend_from_slice(b"&gt;"),
            b'&' => html.extend_from_slice(b"&amp;"),
            b'"' => html.extend_from_slice(b"&quot;"),
            b'\'' => html.extend_from_slice(b"&#39;"),
            b'`' => html.extend_from_slice(b"&#96;"),
            byte => html.extend_from_slice(&[byte]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn values<'a>(request_id: &'a str, host: &'a str) -> Values<'a> {
        Values {
            request_id: request_id.as_bytes(),
            retry_after: 90,
            refresh: 30,
            host: host.as_bytes(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            at: UNIX_EPOCH + Duration::from_secs(1_795_240_134),
            title: "It's <b>",
            text: "",
        }
    }

    fn filled(html: &str, values: &Values<'_>) -> String {
        let html = Template::new(&Bytes::copy_from_slice(html.as_bytes())).fill(values);
        String::from_utf8(html.to_vec()).unwrap()
    }

    #[test]
    fn every_variable_is_filled_in() {
        let text = "{{request_id}} {{ retry_after }} {{refresh}} {{host}} {{status}} {{reason}} {{time}}";
        assert_eq!(
            filled(text, &values("id-1", "a.example")),
            "id-1 90 30 a.example 503 Service Unavailable 2026-11-21T05:48:54Z"
        );
    }

    #[test]
    fn what_comes_from_outside_is_never_markup() {
        let evil = values("<script>&\"'`", "<img src=x>");
        let html = filled("{{request_id}}|{{host}}|{{own_title}}", &evil);
        assert_eq!(html, "&lt;script&gt;&amp;&quot;&#39;&#96;|&lt;img src=x&gt;|It&#39;s &lt;b&gt;");
        assert_eq!(filled("{{host}}", &values("", "{{host}}")), "{{host}}", "a value is not filled in again");
    }

    #[test]
    fn unknown_variables_are_found_with_their_line_and_other_braces_are_left_alone() {
        assert_eq!(unknown(b"a {{request_id}}\n{{ hots }}"), Some(Unknown { name: "hots".into(), line: 2 }));
        assert_eq!(unknown(b"{{own_title}}").unwrap().name, "own_title");
        for fine in
            ["", "{{", "{{}}", "{{ }}", "{{a b}}", "a{b:{c:1}}", "{{{host}}}", "{{x.y}}", "}}{{", "{{host}"]
        {
            assert_eq!(unknown(fine.as_bytes()), None, "{fine}");
        }
        assert_eq!(filled("{{{host}}} {{x.y}}", &values("", "h")), "{h} {{x.y}}");
    }

    proptest! {
        #[test]
        fn text_without_variables_stays_as_it_is(text in "[{}a-z_ \\n<]{0,80}") {
            prop_assume!(unknown(text.as_bytes()).is_none() && !KNOWN.iter().any(|(name, _)| text.contains(name)));
            prop_assert_eq!(filled(&text, &values("x", "y")), text);
        }
    }
}
