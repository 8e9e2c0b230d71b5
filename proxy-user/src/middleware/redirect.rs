//! Sends the client elsewhere, unless it is there already.

use http::{HeaderMap, HeaderValue, Uri};

use super::{Halt, Passage, paths};
use crate::{
    config::model::{MiddlewareKind, Redirect},
    routing::canonical,
};

pub fn admit(redirect: &Redirect, passage: &mut Passage<'_>) -> Result<(), Halt> {
    let host = passage.host.as_ref().and_then(|host| host.to_str().ok());
    let scheme = scheme(&passage.head.headers, passage.facts.scheme);
    match location(redirect, scheme, host, &passage.head.uri) {
        Ok(None) => Ok(()),
        Ok(Some(location)) => Err(Halt::Redirect {
            status: redirect.status,
            location: HeaderValue::from_str(&location).map_err(|_| Halt::Unfit)?,
        }),
        Err(NoHost) => Err(Halt::Unfit),
    }
}

/// For `weir explain`.
pub fn explained(kind: &MiddlewareKind, scheme: &str, host: &str, uri: &Uri) -> Option<String> {
    match kind {
        MiddlewareKind::Redirect(redirect) => location(redirect, scheme, Some(host), uri).ok().flatten(),
        _ => None,
    }
}

/// How the client came: behind a trusted proxy that proxy's word counts, and it was checked before.
fn scheme<'a>(headers: &'a HeaderMap, ours: &'a str) -> &'a str {
    let told = headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok());
    told.filter(|proto| matches!(*proto, "http" | "https")).unwrap_or(ours)
}

#[derive(Debug, PartialEq, Eq)]
struct NoHost;

/// Where the client is sent; `None`: it is there already, or its path isn't meant.
fn location(
    redirect: &Redirect,
    scheme: &str,
    host: Option<&str>,
    uri: &Uri,
) -> Result<Option<String>, NoHost> {
    let path = match &redirect.path {
        None => None,
        Some(replace) => match paths::replaced(replace, uri.path()) {
            None => return Ok(None),
            Some(path) => Some(path).filter(|path| path != uri.path()),
        },
    };
    let new_scheme = redirect.scheme.as_ref().map(http::uri::Scheme::as_str).filter(|new| *new != scheme);
    let asked = host.unwrap_or_default();
    let new_host = redirect.host.as_deref().filter(|new| match new.contains(':') {
        true => !asked.eq_ignore_ascii_case(new),
        false => canonical(asked) != **new,
    });
    if path.is_none() && new_scheme.is_none() && new_host.is_none() {
        return Ok(None);
    }
    let target_host = match new_host {
        Some(host) => host,
        None if asked.is_empty() => return Err(NoHost),
        // A port belongs to its scheme.
        None if new_scheme.is_some() => without_port(asked),
        None => asked,
    };
    let path = path.as_deref().unwrap_or(uri.path());
    // `OPTIONS *`
    let path = if path.starts_with('/') { path } else { "/" };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(Some(format!("{}://{target_host}{path}{query}", new_scheme.unwrap_or(scheme))))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Pattern, ReplacePath};
    use http::{StatusCode, uri::Scheme};

    fn redirect(scheme: Option<Scheme>, host: Option<&str>, path: Option<(&str, &str)>) -> Redirect {
        let path = path.map(|(regex, to)| ReplacePath { regex: Pattern::new(regex).unwrap(), to: to.into() });
        Redirect { scheme, host: host.map(Into::into), path, status: StatusCode::PERMANENT_REDIRECT }
    }

    #[test]
    fn a_request_is_sent_elsewhere_unless_it_is_there() {
        let https = redirect(Some(Scheme::HTTPS), None, None);
        let www = redirect(None, Some("www.example.com"), None);
        let port = redirect(Some(Scheme::HTTPS), Some("a.example:8443"), None);
        let path = redirect(None, None, Some(("/old/(.*)", "/new/$1")));
        let still = redirect(None, None, Some(("(/.*)", "$1")));
        for (redirect, asked, expected) in [
            (&https, "http://a.example/x?y=1", Some("https://a.example/x?y=1")),
            (&https, "http://a.example:8080/", Some("https://a.example/")),
            (&https, "http://[2001:db8::1]:80/", Some("https://[2001:db8::1]/")),
            (&https, "https://a.example/", None),
            (&www, "https://example.com/x", Some("https://www.example.com/x")),
            (&www, "https://WWW.example.com:443/x", None),
            (&port, "http://a.example/", Some("https://a.example:8443/")),
            (&port, "https://a.example:8443/", None),
            (&path, "https://a.example/old/x?q", Some("https://a.example/new/x?q")),
            (&path, "https://a.example/older", None),
            (&path, "https://a.example/old//evil.example", Some("https://a.example/new//evil.example")),
            (&still, "https://a.example/x", None),
        ] {
            let uri: Uri = asked.parse().unwrap();
            let host = uri.authority().map(http::uri::Authority::as_str);
            let location = location(redirect, uri.scheme_str().unwrap(), host, &uri).unwrap();
            assert_eq!(location.as_deref(), expected, "{asked}");
        }
        assert_eq!(location(&https, "http", None, &"/".parse().unwrap()), Err(NoHost));
    }
}
