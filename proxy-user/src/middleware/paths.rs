//! Changes the path that the server gets to see. The query stays.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use super::{Halt, Passage};
use crate::config::model::{MiddlewareKind, ReplacePath};

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What a middleware makes of a path; `None`: it leaves it alone. For `weir explain` too.
pub fn rewritten(kind: &MiddlewareKind, path: &str) -> Option<String> {
    match kind {
        MiddlewareKind::StripPath(prefixes) => stripped(prefixes, path).map(|(path, _)| path),
        MiddlewareKind::AddPath(prefix) => Some(added(prefix, path)),
        MiddlewareKind::ReplacePath(replace) => replaced(replace, path),
        _ => None,
    }
}

pub fn strip(prefixes: &[Arc<str>], passage: &mut Passage<'_>) -> Result<(), Halt> {
    let Some((path, prefix)) = stripped(prefixes, passage.head.uri.path()) else { return Ok(()) };
    if let Ok(prefix) = HeaderValue::from_str(prefix) {
        passage.head.headers.insert(X_FORWARDED_PREFIX, prefix);
    }
    set_path(&mut passage.head.uri, &path)
}

pub fn add(prefix: &str, passage: &mut Passage<'_>) -> Result<(), Halt> {
    let path = added(prefix, passage.head.uri.path());
    set_path(&mut passage.head.uri, &path)
}

pub fn replace(replace: &ReplacePath, passage: &mut Passage<'_>) -> Result<(), Halt> {
    match replaced(replace, passage.head.uri.path()) {
        Some(path) => set_path(&mut passage.head.uri, &path),
        None => Ok(()),
    }
}

fn stripped<'a>(prefixes: &'a [Arc<str>], path: &str) -> Option<(String, &'a str)> {
    let prefix = prefixes.iter().find(|prefix| crate::routing::is_under(path, prefix))?;
    let rest = &path[prefix.len()..];
    Some((if rest.is_empty() { "/".to_owned() } else { rest.to_owned() }, prefix))
}

fn added(prefix: &str, path: &str) -> String {
    // `OPTIONS *` has no path to put something before.
    if path.starts_with('/') { format!("{prefix}{path}") } else { path.to_owned() }
}

pub fn replaced(replace: &ReplacePath, path: &str) -> Option<String> {
    let regex = replace.regex.regex();
    let captures = regex.captures(path)?;
    let mut new = String::new();
    captures.expand(&replace.to, &mut new);
    // A group may have matched nothing, or something in the middle of the path.
    Some(if new.starts_with('/') { new } else { format!("/{new}") })
}

/// The path and the query of `uri`, with another path.
pub fn with_path(uri: &Uri, path: &str) -> Option<PathAndQuery> {
    let whole = match uri.query() {
        Some(query) => Cow::Owned(format!("{path}?{query}")),
        None => Cow::Borrowed(path),
    };
    whole.parse().ok()
}

pub fn set_path(uri: &mut Uri, path: &str) -> Result<(), Halt> {
    let target = with_path(uri, path).ok_or(Halt::Unfit)?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| Halt::Unfit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Pattern;

    fn replace_with(regex: &str, to: &str) -> MiddlewareKind {
        MiddlewareKind::ReplacePath(ReplacePath { regex: Pattern::new(regex).unwrap(), to: to.into() })
    }

    #[test]
    fn paths_are_rewritten_by_whole_segments() {
        let strip = MiddlewareKind::StripPath(vec!["/api/v1".into(), "/api".into()]);
        let add = MiddlewareKind::AddPath("/v1".into());
        for (kind, path, expected) in [
            (&strip, "/api", Some("/")),
            (&strip, "/api/", Some("/")),
            (&strip, "/api/x/y", Some("/x/y")),
            (&strip, "/api/v1/x", Some("/x")),
            (&strip, "/apis", None),
            (&strip, "*", None),
            (&add, "/x", Some("/v1/x")),
            (&add, "/", Some("/v1/")),
            (&replace_with("/old/(.*)", "/new/$1"), "/old/a%20b/c", Some("/new/a%20b/c")),
            (&replace_with("/old/(.*)", "/new/$1"), "/x/old/a", None),
            (&replace_with("/(?P<a>[a-z]+)/(?P<b>[0-9]+)", "/${b}x/$a"), "/a/7", Some("/7x/a")),
            (&replace_with("/x(/.*)?", "$1"), "/x", Some("/")),
        ] {
            assert_eq!(rewritten(kind, path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_query_stays() {
        let mut uri: Uri = "https://a.example/x?y=1".parse().unwrap();
        set_path(&mut uri, "/z").unwrap();
        assert_eq!(uri, "https://a.example/z?y=1");
        assert!(set_path(&mut uri, "/a b").is_err());
    }
}
