//! Sets, adds and removes header fields.

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::Scheme};

use super::Passage;
use crate::{
    access_log::Exchange,
    config::model::{HeaderChanges, Piece, Template},
};

/// What values can be filled with.
#[derive(Debug, Clone)]
pub struct Facts {
    pub client: HeaderValue,
    pub host: Option<HeaderValue>,
    pub scheme: &'static str,
    pub request_id: HeaderValue,
    pub route: std::sync::Arc<str>,
}

impl Facts {
    pub fn of(exchange: &Exchange, host: Option<&HeaderValue>, scheme: &Scheme) -> Self {
        Self {
            client: exchange.client.clone(),
            host: host.cloned(),
            scheme: if *scheme == Scheme::HTTPS { "https" } else { "http" },
            request_id: exchange.request_id.clone(),
            route: exchange.route.clone().unwrap_or_else(|| "".into()),
        }
    }
}

/// Takes a field out, also under the other spelling that CGI and WSGI read as the same: what Weir says of a client in
/// `X-User`, no client may say beside it in `X_User`.
pub fn forget(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    let alike = |known: &&HeaderName| {
        known.as_str().contains('_') && known.as_str().replace('_', "-") == name.as_str().replace('_', "-")
    };
    while let Some(known) = headers.keys().find(alike).cloned() {
        headers.remove(known);
    }
}

pub fn apply(changes: &HeaderChanges, headers: &mut HeaderMap, facts: &Facts) {
    for name in &changes.remove {
        forget(headers, name);
    }
    for (name, value) in &changes.set {
        forget(headers, name);
        headers.insert(name, filled(value, facts));
    }
    for (name, value) in &changes.add {
        headers.append(name, filled(value, facts));
    }
}

pub fn apply_to_request(changes: &HeaderChanges, passage: &mut Passage<'_>) {
    apply(changes, &mut passage.head.headers, passage.facts);
    // The host travels apart, since HTTP/2 has it elsewhere.
    if let Some((_, value)) = changes.set.iter().find(|(name, _)| *name == header::HOST) {
        *passage.host = Some(filled(value, passage.facts));
    }
}

fn filled(template: &Template, facts: &Facts) -> HeaderValue {
    let pieces = match template {
        Template::Fixed(value) => return value.clone(),
        Template::Pieces(pieces) => pieces,
    };
    let mut value = Vec::with_capacity(64);
    for piece in pieces {
        value.extend_from_slice(match piece {
            Piece::Text(text) => text.as_bytes(),
            Piece::ClientIp => facts.client.as_bytes(),
            Piece::Host => facts.host.as_ref().map_or(&b""[..], HeaderValue::as_bytes),
            Piece::Scheme => facts.scheme.as_bytes(),
            Piece::RequestId => facts.request_id.as_bytes(),
            Piece::Route => facts.route.as_bytes(),
        });
    }
    // A route's name may hold what no header field can.
    HeaderValue::from_bytes(&value).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(value: &'static str) -> Template {
        Template::Fixed(HeaderValue::from_static(value))
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let facts = Facts {
            client: HeaderValue::from_static("192.0.2.1"),
            host: None,
            scheme: "https",
            request_id: HeaderValue::from_static("id-1"),
            route: "r".into(),
        };
        let name = HeaderName::from_static;
        let mut headers = HeaderMap::new();
        let given = [("x-old", "1"), ("x_old", "1"), ("x-a", "1"), ("x-a", "2"), ("x_a", "9"), ("x-b", "1")];
        for (field, value) in given {
            headers.append(name(field), HeaderValue::from_static(value));
        }
        let pieces = vec![Piece::ClientIp, Piece::Text(" over ".into()), Piece::Scheme, Piece::Host];
        let changes = HeaderChanges {
            remove: vec![name("x-old"), name("x-b")],
            set: vec![(name("x-a"), fixed("3")), (name("x-who"), Template::Pieces(pieces))],
            add: vec![(name("x-b"), fixed("2")), (name("x-a"), fixed("4"))],
        };
        apply(&changes, &mut headers, &facts);
        let all = |name: &str| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((all("x-old"), all("x-a"), all("x-b")), (vec![], vec!["3", "4"], vec!["2"]));
        assert_eq!(all("x-who"), ["192.0.2.1 over https"]);
        assert_eq!((all("x_old"), all("x_a")), (vec![], vec![]), "look-alikes go too");
    }
}
