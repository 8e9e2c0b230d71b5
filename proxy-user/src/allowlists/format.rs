//! What a list's server sent → prefixes. Strict: a single line or element that isn't a prefix rejects the whole, since
//! nobody can tell what else is wrong with it.

use std::str;

use ipnet::IpNet;
use serde_json::Value;

use crate::config::{parse_prefix, quoted};

/// What is no list. `Display` is the end of a sentence that begins with the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("line {line}: {what} {because}")]
    Line { line: usize, what: String, because: String },
    #[error("not UTF-8 text (from byte {0} on)")]
    NotText(usize),
    #[error("not JSON: {0}")]
    NotJson(String),
    #[error("nothing stands at {0} in the document")]
    NothingThere(String),
    #[error("what stands at {0} in the document is neither text nor a list of it")]
    NotAList(String),
    #[error("at {pointer} in the document: {what} {because}")]
    Element { pointer: String, what: String, because: String },
}

/// Reads a body: text where there are no `pointers`, JSON otherwise. Each prefix once, in the order of the document.
///
/// # Errors
/// With the first thing that is wrong.
pub fn read(body: &[u8], pointers: &[String]) -> Result<Vec<IpNet>, Unreadable> {
    let mut prefixes = if pointers.is_empty() { lines(body)? } else { json(body, pointers)? };
    let mut seen = std::collections::HashSet::new();
    prefixes.retain(|prefix| seen.insert(*prefix));
    Ok(prefixes)
}

/// One prefix a line; `#` begins a comment.
fn lines(body: &[u8]) -> Result<Vec<IpNet>, Unreadable> {
    let text = str::from_utf8(body).map_err(|error| Unreadable::NotText(error.valid_up_to()))?;
    let mut prefixes = Vec::new();
    // Some servers begin a text with a byte order mark.
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let word = line.split('#').next().unwrap_or_default().trim();
        if word.is_empty() {
            continue;
        }
        let prefix = parse_prefix(word).map_err(|refusal| Unreadable::Line {
            line: index + 1,
            what: quoted(word),
            because: refusal.because,
        })?;
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

fn json(body: &[u8], pointers: &[String]) -> Result<Vec<IpNet>, Unreadable> {
    let document: Value =
        serde_json::from_slice(body).map_err(|error| Unreadable::NotJson(error.to_string()))?;
    let mut prefixes = Vec::new();
    for pointer in pointers {
        let found = at(&document, pointer);
        if found.is_empty() {
            return Err(Unreadable::NothingThere(quoted(pointer)));
        }
        for value in found {
            let elements = match value {
                Value::Array(elements) => elements.as_slice(),
                one @ Value::String(_) => std::slice::from_ref(one),
                _ => return Err(Unreadable::NotAList(quoted(pointer))),
            };
            for element in elements {
                prefixes.push(prefix(element, pointer)?);
            }
        }
    }
    Ok(prefixes)
}

fn prefix(element: &Value, pointer: &str) -> Result<IpNet, Unreadable> {
    let fault =
        |what: String, because: String| Unreadable::Element { pointer: quoted(pointer), what, because };
    let Some(word) = element.as_str() else {
        return Err(fault(quoted(&element.to_string()), "is not text".to_owned()));
    };
    parse_prefix(word).map_err(|refusal| fault(quoted(word), refusal.because))
}

/// All that a JSON pointer (RFC 6901) leads to, where `*` leads to every element of a list. Elements that lack what
/// follows are passed over: lists of both families have a key for one of them in each element.
fn at<'a>(document: &'a Value, pointer: &str) -> Vec<&'a Value> {
    let mut found = vec![document];
    for segment in pointer.split('/').skip(1) {
        let key = segment.replace("~1", "/").replace("~0", "~");
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(elements) if segment == "*" => elements.iter().collect(),
                Value::Array(elements) => {
                    key.parse::<usize>().ok().and_then(|index| elements.get(index)).into_iter().collect()
                }
                Value::Object(members) => members.get(&key).into_iter().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(body: &str) -> Result<Vec<String>, String> {
        shown(read(body.as_bytes(), &[]))
    }

    fn pointed(body: &str, pointers: &[&str]) -> Result<Vec<String>, String> {
        let pointers: Vec<_> = pointers.iter().map(|&pointer| pointer.to_owned()).collect();
        shown(read(body.as_bytes(), &pointers))
    }

    fn shown(read: Result<Vec<IpNet>, Unreadable>) -> Result<Vec<String>, String> {
        read.map(|prefixes| prefixes.iter().map(ToString::to_string).collect())
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn lines_are_prefixes_comments_or_empty() {
        let body = "# both families\r\n192.0.2.0/24\r\n\n 2001:db8::/32 # v6\n192.0.2.7\n192.0.2.0/24";
        assert_eq!(text(body).unwrap(), ["192.0.2.0/24", "2001:db8::/32", "192.0.2.7/32"]);
        assert_eq!(text("").unwrap(), [""; 0]);
    }

    #[test]
    fn one_bad_line_rejects_all_and_is_named() {
        for (body, fault) in [
            ("192.0.2.0/24\n\n192.0.2.0/33\n", "line 3: `192.0.2.0/33` is not a prefix"),
            ("<!doctype html>", "line 1: `<!doctype html>` is not a prefix"),
            ("10.1.2.3/8", "line 1: `10.1.2.3/8` has bits set behind its length of 8"),
            ("192.0.2.0/24 198.51.100.0/24", "line 1: `192.0.2.0/24 198.51.100.0/24` is not a prefix"),
        ] {
            assert_eq!(text(body).unwrap_err(), fault);
        }
        assert_eq!(read(b"192.0.2.0/24\n\xff", &[]), Err(Unreadable::NotText(13)));
    }

    #[test]
    fn json_pointers_lead_to_lists_and_through_them() {
        let cloudflare =
            r#"{"result":{"ipv4_cidrs":["173.245.48.0/20"],"ipv6_cidrs":["2400:cb00::/32"]},"success":true}"#;
        assert_eq!(
            pointed(cloudflare, &["/result/ipv4_cidrs", "/result/ipv6_cidrs"]).unwrap(),
            ["173.245.48.0/20", "2400:cb00::/32"]
        );
        let mixed = r#"{"prefixes":[{"ipv4Prefix":"192.0.2.0/24"},{"ipv6Prefix":"2001:db8::/32"}]}"#;
        assert_eq!(pointed(mixed, &["/prefixes/*/ipv4Prefix"]).unwrap(), ["192.0.2.0/24"]);
        assert_eq!(pointed(r#"{"a/b":{"~":["192.0.2.1"]}}"#, &["/a~1b/~0"]).unwrap(), ["192.0.2.1/32"]);
        assert_eq!(pointed(r#"[["192.0.2.1"]]"#, &["/0"]).unwrap(), ["192.0.2.1/32"]);
    }

    #[test]
    fn a_document_of_another_shape_is_no_list() {
        for (body, fault) in [
            (r#"{"v4":null}"#, "what stands at `/v4` in the document is neither text nor a list of it"),
            (r#"{"v6":[]}"#, "nothing stands at `/v4` in the document"),
            (r#"{"v4":["192.0.2.0/24",7]}"#, "at `/v4` in the document: `7` is not text"),
            (r#"{"v4":["all"]}"#, "at `/v4` in the document: `all` is not a prefix"),
        ] {
            assert_eq!(pointed(body, &["/v4"]).unwrap_err(), fault);
        }
        assert!(pointed(r#"{"v4":["192.0.2."#, &["/v4"]).unwrap_err().starts_with("not JSON"));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = read(&body, &[]);
            let _ = read(&body, &["/a/*/b".to_owned()]);
        }

        #[test]
        fn what_is_written_is_read(v4 in prop::collection::hash_set((any::<u32>(), 0u8..=32), 0..50)) {
            let mut nets: Vec<IpNet> = v4
                .into_iter()
                .map(|(address, length)| IpNet::new(std::net::Ipv4Addr::from(address).into(), length).unwrap().trunc())
                .collect();
            nets.sort();
            nets.dedup();
            let body: String = nets.iter().map(|net| format!("{net}\n")).collect();
            prop_assert_eq!(read(body.as_bytes(), &[]), Ok(nets));
        }
    }
}
