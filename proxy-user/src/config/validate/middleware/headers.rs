//! `headers`

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, header};

use super::{Site, fault, header_name, header_names};
use crate::config::{
    code::Code,
    findings::Findings,
    model::{HeaderChanges, Headers, MiddlewareKind, Piece, Template},
    value::quoted,
    written::{self, At, Name},
};

/// These say how a message is framed and what its connection does; whoever changes them breaks one of the two.
const FRAMING: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
];

pub fn headers(
    site: &Site<'_>,
    written: &written::Headers,
    findings: &mut Findings,
) -> Option<MiddlewareKind> {
    let request = written.request.as_ref().map(|changes| changes_of(site, &changes.value, true, findings));
    let response = written.response.as_ref().map(|changes| changes_of(site, &changes.value, false, findings));
    Some(MiddlewareKind::Headers(Headers {
        request: request.unwrap_or_else(|| Some(HeaderChanges::default()))?,
        response: response.unwrap_or_else(|| Some(HeaderChanges::default()))?,
    }))
}

fn changes_of(
    site: &Site<'_>,
    written: &written::HeaderChanges,
    of_request: bool,
    findings: &mut Findings,
) -> Option<HeaderChanges> {
    let set = templates(site, &written.set, findings);
    let add = templates(site, &written.add, findings);
    let remove = header_names(site, written.remove.as_ref(), findings);
    let spots = written.set.keys().chain(written.add.keys());
    let removed = written.remove.iter().flat_map(|list| &list.items);
    for name in spots.chain(removed) {
        let framing = name.value.parse::<HeaderName>().is_ok_and(|known| FRAMING.contains(&known));
        if framing {
            let message = format!("{} is Weir's own to set", quoted(&name.value));
            let hint = "it says how the message is framed, or what becomes of its connection";
            fault::<()>(site, Code::BadHeader, &name.span, &message, hint, findings);
        }
    }
    let host =
        written.add.keys().chain(removed_names(written)).find(|name| name.value.eq_ignore_ascii_case("host"));
    if let Some(name) = host.filter(|_| of_request) {
        let message = "a request has exactly one `Host`";
        fault::<()>(site, Code::BadHeader, &name.span, message, "`set` replaces it", findings);
    }
    Some(HeaderChanges { remove: remove?, set: set?, add: add? })
}

fn removed_names(written: &written::HeaderChanges) -> impl Iterator<Item = &At<String>> {
    written.remove.iter().flat_map(|list| &list.items)
}

fn templates(
    site: &Site<'_>,
    written: &BTreeMap<Name, At<String>>,
    findings: &mut Findings,
) -> Option<Vec<(HeaderName, Template)>> {
    let each: Vec<_> = written
        .iter()
        .map(|(name, value)| {
            let name = header_name(site, name, findings);
            let value = template(site, value, findings);
            name.zip(value)
        })
        .collect();
    each.into_iter().collect()
}

fn template(site: &Site<'_>, written: &At<String>, findings: &mut Findings) -> Option<Template> {
    if HeaderValue::from_str(&written.value).is_err() {
        let message = format!("{} is not a header's value", quoted(&written.value));
        return fault(
            site,
            Code::BadHeader,
            &written.span,
            &message,
            "it holds visible characters only",
            findings,
        );
    }
    let mut pieces = Vec::new();
    let mut rest = &*written.value;
    // What is no name in braces is text: values may well be JSON.
    while let Some((before, name, behind)) = placeholder(rest) {
        let piece = match name {
            "client_ip" => Piece::ClientIp,
            "host" => Piece::Host,
            "scheme" => Piece::Scheme,
            "request_id" => Piece::RequestId,
            "route" => Piece::Route,
            other => {
                let message = format!("`{{{other}}}` is nothing that could be filled in");
                let hint = "there are `{client_ip}`, `{host}`, `{scheme}`, `{request_id}` and `{route}`";
                return fault(site, Code::BadHeader, &written.span, &message, hint, findings);
            }
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        pieces.push(piece);
        rest = behind;
    }
    if pieces.is_empty() {
        return HeaderValue::from_str(rest).ok().map(Template::Fixed);
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    Some(Template::Pieces(pieces))
}

/// The first `{name}`, and what is before and behind it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(open, _)| {
        let close = open + text[open..].find('}')?;
        let name = &text[open + 1..close];
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        plain.then(|| (&text[..open], name, &text[close + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_braces_are_placeholders() {
        assert_eq!(placeholder("a{host}b"), Some(("a", "host", "b")));
        assert_eq!(placeholder(r#"{"a":{host}}"#), Some((r#"{"a":"#, "host", "}")));
        for none in ["", "{}", "{", "}", "{A}", r#"{"a":1}"#] {
            assert_eq!(placeholder(none), None, "{none}");
        }
    }
}
