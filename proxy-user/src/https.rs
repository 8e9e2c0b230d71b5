//! What an entrypoint does for HTTPS around a request: sends plain ones on, tells browsers to stay, turns away what came
//! over a connection that was made for somebody else, and tells servers of the client's certificate.

use http::{HeaderValue, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};

use crate::{config::model::RedirectToHttps, request::Caller, routing, snapshot::Entrypoint, tls::client};

/// Whether a request for `host` (as its Host field has it) may be answered on the connection that it came over.
pub fn well_directed(caller: &Caller, entrypoint: &Entrypoint, host: &str) -> bool {
    match (&entrypoint.tls, &caller.session) {
        (Some(tls), Some(session)) => session.may_ask_for(&routing::canonical(host), tls),
        // A reload has made this an HTTPS entrypoint; the connection is from before.
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// Where a plain request is sent on to, unless its path is excepted. `None`: it takes its route.
pub fn onward(redirect: &RedirectToHttps, host: &str, target: &Uri) -> Option<HeaderValue> {
    if redirect.except.iter().any(|path| routing::is_under(target.path(), path)) {
        return None;
    }
    let host = without_port(host);
    // `OPTIONS *` has no path.
    let target = target.path_and_query().map(PathAndQuery::as_str).filter(|target| target.starts_with('/'));
    let target = target.unwrap_or("/");
    let location = match redirect.port {
        Some(port) => format!("https://{host}:{port}{target}"),
        None => format!("https://{host}{target}"),
    };
    HeaderValue::try_from(location).ok()
}

/// Sends a request on.
pub fn sent_on<B>(mut response: Response<B>, to: HeaderValue) -> Response<B> {
    response.headers_mut().insert(header::LOCATION, to);
    response
}

/// A connection on which requests for the wrong hosts come is no use to its client any more: it makes a new one.
pub fn misdirected<B>(mut response: Response<B>, version: Version) -> Response<B> {
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `Strict-Transport-Security`, on whatever is answered over TLS.
pub fn strict<B>(caller: &Caller, mut response: Response<B>) -> Response<B> {
    if caller.session.is_some()
        && let Some(entrypoint) = caller.worker.snapshot().entrypoint(caller.at)
        && let Some(hsts) = &entrypoint.hsts
    {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    response
}

/// `Alt-Svc`, on whatever is answered over TCP where HTTP/3 is served too. A server's own is about its own address.
pub fn advertised<B>(caller: &Caller, version: Version, mut response: Response<B>) -> Response<B> {
    if version < Version::HTTP_3
        && caller.session.is_some()
        && let Some(entrypoint) = caller.worker.snapshot().entrypoint(caller.at)
        && let Some(http3) = &entrypoint.http3
    {
        response.headers_mut().insert(header::ALT_SVC, http3.alt_svc(caller.at));
    }
    response
}

/// Tells the server of the client's certificate, where that is wanted. What the client says of it is gone by now.
pub fn tell_of_client(caller: &Caller, entrypoint: &Entrypoint, headers: &mut http::HeaderMap) {
    if let (Some(tls), Some(session)) = (&entrypoint.tls, &caller.session)
        && tls.client_headers
    {
        client::tell(headers, session.client.as_ref());
    }
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

    fn location(redirect: &RedirectToHttps, host: &str, target: &str) -> Option<String> {
        let to = onward(redirect, host, &target.parse().unwrap())?;
        Some(to.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_plain_request_is_sent_on_to_the_same_place() {
        let redirect =
            RedirectToHttps { port: None, status: StatusCode::PERMANENT_REDIRECT, except: Vec::new() };
        let elsewhere = RedirectToHttps { port: Some(8443), ..redirect.clone() };
        for (host, target, expected) in [
            ("a.example", "/", "https://a.example/"),
            ("a.example:80", "/x/y?z=1&q=/", "https://a.example/x/y?z=1&q=/"),
            ("[2001:db8::1]:8080", "/", "https://[2001:db8::1]/"),
            ("[2001:db8::1]", "/", "https://[2001:db8::1]/"),
            ("a.example", "*", "https://a.example/"),
            ("a.example", "http://a.example/abs", "https://a.example/abs"),
        ] {
            assert_eq!(location(&redirect, host, target).as_deref(), Some(expected), "{host} {target}");
        }
        let moved = location(&elsewhere, "a.example:8080", "/x");
        assert_eq!(moved.as_deref(), Some("https://a.example:8443/x"));
    }

    #[test]
    fn excepted_paths_take_their_routes() {
        let redirect = RedirectToHttps {
            port: None,
            status: StatusCode::PERMANENT_REDIRECT,
            except: vec!["/health".into()],
        };
        for (path, stays) in [("/health", true), ("/health/deep", true), ("/healthy", false), ("/", false)] {
            assert_eq!(location(&redirect, "a.example", path).is_none(), stays, "{path}");
        }
    }
}
