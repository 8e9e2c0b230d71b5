//! Filters of an HTTPRoute's rule → middleware. One that can't be done as it says refuses the whole rule.

use toml::{Table, Value};

use super::objects::{
    BackendReference, Field, HeaderModifier, HttpFilter, HttpMatch, PathChange, RequestMirror,
    RequestRedirect, Rest, UrlRewrite,
};

/// What the filters of a rule come to.
#[derive(Debug, Default)]
pub struct Done {
    /// In the order in which requests pass.
    pub chain: Vec<Value>,
    /// Nobody is asked: every request is sent elsewhere.
    pub redirects: bool,
    pub mirror: Vec<Mirror>,
}

#[derive(Debug)]
pub struct Mirror {
    pub to: BackendReference,
    /// In percent, as Weir writes it.
    pub share: String,
}

/// The filters of a rule for requests that match so.
///
/// # Errors
/// Why they can't be done: the end of a sentence that begins with the rule.
pub fn of(filters: &[HttpFilter], asked: &HttpMatch, hosts: &[String]) -> Result<Done, String> {
    let mut done = Done::default();
    for filter in filters {
        let missing = || format!("the filter {} has nothing in it", filter.r#type);
        match &*filter.r#type {
            "RequestHeaderModifier" => {
                let changes = filter.request_header_modifier.as_ref().ok_or_else(missing)?;
                done.chain.extend(headers("request", changes)?);
            }
            "ResponseHeaderModifier" => {
                let changes = filter.response_header_modifier.as_ref().ok_or_else(missing)?;
                done.chain.extend(headers("response", changes)?);
            }
            "RequestRedirect" => {
                let to = filter.request_redirect.as_ref().ok_or_else(missing)?;
                done.chain.push(redirect(to, asked, hosts)?);
                done.redirects = true;
            }
            "URLRewrite" => {
                rewrite(filter.url_rewrite.as_ref().ok_or_else(missing)?, asked, &mut done.chain)?;
            }
            "RequestMirror" => {
                done.mirror.push(mirror(filter.request_mirror.as_ref().ok_or_else(missing)?)?);
            }
            other => return Err(format!("the filter {other} is not supported")),
        }
    }
    Ok(done)
}

/// What nobody here knows could be what the filter is about.
fn nothing_else(filter: &str, rest: &Rest) -> Result<(), String> {
    match rest.keys().next() {
        None => Ok(()),
        Some(field) => Err(format!("`{field}` of the filter {filter} is not supported")),
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn headers(of: &str, changes: &HeaderModifier) -> Result<Option<Value>, String> {
    nothing_else("HeaderModifier", &changes.rest)?;
    let fields = |fields: &[Field]| -> Result<Table, String> {
        // Names in braces are filled in by Weir; these values are meant as they stand.
        match fields.iter().find(|field| field.value.contains('{')) {
            Some(field) => {
                Err(format!("the value of header `{}` has a brace, which can't be said", field.name))
            }
            None => Ok(fields.iter().map(|one| (one.name.clone(), one.value.as_str().into())).collect()),
        }
    };
    let mut table = Table::new();
    for (key, list) in [("set", &changes.set), ("add", &changes.add)] {
        if !list.is_empty() {
            table.insert(key.to_owned(), fields(list)?.into());
        }
    }
    if !changes.remove.is_empty() {
        table.insert("remove".to_owned(), changes.remove.clone().into());
    }
    let whole = self::table([("headers", self::table([(of, table.clone().into())]).into())]);
    Ok((!table.is_empty()).then(|| whole.into()))
}

fn redirect(to: &RequestRedirect, asked: &HttpMatch, hosts: &[String]) -> Result<Value, String> {
    nothing_else("RequestRedirect", &to.rest)?;
    let mut redirect = Table::new();
    redirect.extend(to.scheme.clone().map(|scheme| ("scheme".to_owned(), scheme.into())));
    let usual = match to.scheme.as_deref() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    let port = to.port.filter(|port| Some(*port) != usual);
    match (&to.hostname, port, hosts) {
        (Some(host), None, _) => _ = redirect.insert("host".to_owned(), host.as_str().into()),
        (Some(host), Some(port), _) => {
            redirect.insert("host".to_owned(), format!("{host}:{port}").into());
        }
        (None, None, _) => {}
        (None, Some(port), [host]) if !host.starts_with('*') => {
            redirect.insert("host".to_owned(), format!("{host}:{port}").into());
        }
        (None, Some(_), _) => {
            return Err("a redirect to another port without `hostname` can be served for a single host only"
                .to_owned());
        }
    }
    if let Some(change) = &to.path {
        redirect.insert("path".to_owned(), path(change, asked)?.into());
    }
    if redirect.is_empty() {
        return Err("the redirect leads nowhere else".to_owned());
    }
    redirect.insert("status".to_owned(), i64::from(to.status_code.unwrap_or(302)).into());
    Ok(table([("redirect", redirect.into())]).into())
}

fn rewrite(to: &UrlRewrite, asked: &HttpMatch, chain: &mut Vec<Value>) -> Result<(), String> {
    nothing_else("URLRewrite", &to.rest)?;
    if let Some(change) = &to.path {
        chain.push(table([("replace_path", path(change, asked)?.into())]).into());
    }
    if let Some(host) = &to.hostname {
        let set = HeaderModifier {
            set: vec![Field { name: "Host".to_owned(), value: host.clone() }],
            ..HeaderModifier::default()
        };
        chain.extend(headers("request", &set)?);
    }
    Ok(())
}

/// `{ regex, to }` for the whole path.
fn path(change: &PathChange, asked: &HttpMatch) -> Result<Table, String> {
    let plain = |text: &str| text.replace('$', "$$");
    match (&*change.r#type, &change.replace_full_path, &change.replace_prefix_match) {
        ("ReplaceFullPath", Some(to), _) => Ok(table([("regex", ".*".into()), ("to", plain(to).into())])),
        ("ReplacePrefixMatch", _, Some(to)) => {
            let prefix = asked.path.as_ref();
            let kind = prefix.and_then(|path| path.r#type.as_deref()).unwrap_or("PathPrefix");
            if kind != "PathPrefix" {
                return Err(format!("`ReplacePrefixMatch` goes with PathPrefix, not with {kind}"));
            }
            let prefix = prefix.and_then(|path| path.value.as_deref()).unwrap_or("/").trim_end_matches('/');
            let to = to.trim_end_matches('/');
            // The route matches by whole segments, so what follows the prefix begins with a slash, if anything does.
            let regex = format!("{}{}", regex::escape(prefix), if to.is_empty() { "/?(.*)" } else { "(.*)" });
            let slash = if to.is_empty() { "/" } else { "" };
            Ok(table([("regex", regex.into()), ("to", format!("{}{slash}${{1}}", plain(to)).into())]))
        }
        (other, ..) => Err(format!("the path's change {other:?} is not supported")),
    }
}

fn mirror(to: &RequestMirror) -> Result<Mirror, String> {
    nothing_else("RequestMirror", &to.rest)?;
    let share = match (to.percent, &to.fraction) {
        (Some(percent), _) => f64::from(percent),
        (None, Some(part)) => {
            100.0 * f64::from(part.numerator) / f64::from(part.denominator.unwrap_or(100).max(1))
        }
        (None, None) => 100.0,
    };
    if !(0.01..=100.0).contains(&share) {
        return Err(format!("{share} % of requests can't be copied: it may be 0.01 % to 100 %"));
    }
    // Hundredths, without zeros that say nothing.
    let share = format!("{share:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    Ok(Mirror { to: to.backend_ref.clone(), share: format!("{share}%") })
}

/// A duration of Gateway API (GEP-2257): `1h30m`, `500ms`, `0s`.
///
/// # Errors
/// When it is none: the end of a sentence that begins with its name.
pub fn milliseconds(text: &str) -> Result<u64, String> {
    let none = || format!("{text:?} is not a duration");
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|at| (1..=5).contains(at));
        let (number, unit) = rest.split_at(digits.ok_or_else(none)?);
        let (unit, each) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
            .into_iter()
            .find(|(name, _)| unit.starts_with(name))
            .ok_or_else(none)?;
        sum += number.parse::<u64>().map_err(|_| none())? * each;
        rest = &rest[number.len() + unit.len()..];
    }
    if text.is_empty() { Err(none()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::kubernetes::objects::TypedValue;

    fn prefix(value: &str) -> HttpMatch {
        let path = TypedValue { r#type: None, value: Some(value.to_owned()) };
        HttpMatch { path: Some(path), ..HttpMatch::default() }
    }

    #[test]
    fn a_prefix_is_replaced_as_the_standard_shows_it() {
        // The table of Gateway API's `ReplacePrefixMatch`: path, prefix, replacement, result.
        for (asked, from, to, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/a.b/c", "/a.b", "/$1", "/$1/c"),
        ] {
            let change = PathChange {
                r#type: "ReplacePrefixMatch".to_owned(),
                replace_prefix_match: Some(to.to_owned()),
                ..PathChange::default()
            };
            let change = path(&change, &prefix(from)).unwrap();
            let text = |key: &str| change[key].as_str().unwrap();
            let regex = regex::Regex::new(&format!("^(?:{})$", text("regex"))).unwrap();
            assert_eq!(regex.replace(asked, text("to")), result, "{asked} {from} {to}");
        }
    }

    #[test]
    fn durations_are_those_of_the_standard() {
        for (text, expected) in
            [("0s", Some(0)), ("1h30m", Some(5_400_000)), ("500ms", Some(500)), ("10s", Some(10_000))]
        {
            assert_eq!(milliseconds(text).ok(), expected);
        }
        for text in ["", "s", "1", "1d", "1.5s", "-1s", "100000s"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_never_skipped() {
        let filters = |json: serde_json::Value| -> Result<Done, String> {
            let filters: Vec<HttpFilter> = serde_json::from_value(json).unwrap();
            of(&filters, &prefix("/"), &[])
        };
        for (json, why) in [
            (
                serde_json::json!([{ "type": "ExtensionRef", "extensionRef": {} }]),
                "the filter ExtensionRef is not supported",
            ),
            (
                serde_json::json!([{ "type": "URLRewrite", "urlRewrite": { "query": "x" } }]),
                "`query` of the filter",
            ),
            (
                serde_json::json!([{ "type": "RequestRedirect", "requestRedirect": { "statusCode": 301 } }]),
                "nowhere else",
            ),
            (
                serde_json::json!([{ "type": "RequestHeaderModifier",
                    "requestHeaderModifier": { "set": [{ "name": "X", "value": "{client_ip}" }] } }]),
                "a brace",
            ),
        ] {
            let told = filters(json).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
