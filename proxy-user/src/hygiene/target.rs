//! What may be asked for: the form of a request's target, and its path as the routes see it.
//!
//! A server may decode and simplify a path before it looks at it, so a path that could mean another one there must not
//! take the wrong route here. What would climb (dot segments, in any spelling) is refused; what is only spelt oddly is
//! routed as its plain form and sent on as it was written.

use std::borrow::Cow;

use http::{HeaderValue, Method, Version, request};

use crate::{glance::Glance, hygiene::Fault};

/// Judges a target as HTTP/1 writes it: its form, and the bytes that parsers read differently.
///
/// # Errors
/// With what is wrong with it.
pub fn judge_written(method: &[u8], target: &[u8]) -> Result<(), Fault> {
    // What HTTP's grammar doesn't have, but parsers take; `#` would make one reader see a shorter path than another.
    if target
        .iter()
        .any(|&byte| matches!(byte, 0..=0x20 | 0x7f | b'#' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`'))
    {
        return Err(Fault::Target);
    }
    if !target.is_ascii() && std::str::from_utf8(target).is_err() {
        return Err(Fault::Target);
    }
    let after_scheme = |scheme: &[u8]| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    match target {
        [b'/', ..] => Ok(()),
        b"*" if method == b"OPTIONS" => Ok(()),
        // An authority, which is refused as CONNECT later.
        _ if method == b"CONNECT" => Ok(()),
        _ => match after_scheme(b"http://").or_else(|| after_scheme(b"https://")) {
            Some([first, ..]) if *first != b'/' && *first != b'?' => Ok(()),
            _ => Err(Fault::Target),
        },
    }
}

/// The host that a request asks for: from the target if it names one (HTTP/2, absolute form), else from the Host field,
/// which HTTP/1.1 demands exactly once; `seen` is a look over its fields. Where both name one, they must name the same.
///
/// # Errors
/// When there is none, there are several, or it is no host.
pub fn host(head: &request::Parts, seen: &Glance<'_>) -> Result<Option<HeaderValue>, Fault> {
    let field = seen.host;
    if seen.several_hosts {
        return Err(Fault::Host);
    }
    if let Some(authority) = head.uri.authority() {
        let named = authority.as_str().as_bytes();
        let agrees = field.is_none_or(|field| field.as_bytes().eq_ignore_ascii_case(named));
        if !agrees || !is_host(named) {
            return Err(Fault::Host);
        }
        return HeaderValue::from_bytes(named).map(Some).map_err(|_| Fault::Host);
    }
    match (field, head.version) {
        (Some(field), _) if is_host(field.as_bytes()) => Ok(Some(field.clone())),
        (None, Version::HTTP_09 | Version::HTTP_10) => Ok(None),
        _ => Err(Fault::Host),
    }
}

/// `name`, `name:port`, `[address]:port`: nothing that a reader could take for a path or for user information.
fn is_host(text: &[u8]) -> bool {
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            )
    };
    let (name, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else { return false };
            let literal = std::str::from_utf8(&rest[..end])
                .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            if !literal {
                return false;
            }
            (None, &rest[end + 1..])
        }
        _ => {
            let end = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
            (Some(&text[..end]), &text[end..])
        }
    };
    let port_is_good = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port_is_good && name.is_none_or(|name| !name.is_empty() && name.iter().all(allowed))
}

/// The path by which a request is routed. Mostly the path as it is; where it is spelt oddly, without repeated slashes,
/// needless percent-encoding and parameters behind `;`.
///
/// # Errors
/// When a server could take it for a path elsewhere, or for a shorter one.
pub fn routed<'a>(method: &Method, path: &'a str) -> Result<Cow<'a, str>, Fault> {
    if *method == Method::OPTIONS && path == "*" {
        return Ok(Cow::Borrowed("/"));
    }
    let bytes = path.as_bytes();
    let mut odd = false;
    // One pass for the many that are plain: nothing encoded, no parameters, no `//`, no segment that begins with a dot.
    let mut before = b'/';
    for (index, &byte) in bytes.iter().enumerate() {
        odd |= matches!(byte, b'%' | b';' | b'\\')
            || (before == b'/' && (byte == b'.' || (byte == b'/' && index > 0)));
        before = byte;
    }
    if !odd { Ok(Cow::Borrowed(path)) } else { plain(bytes).map(Cow::Owned) }
}

/// The plain form of an odd path.
fn plain(path: &[u8]) -> Result<String, Fault> {
    let decoded = decode(path)?;
    // Encoded separators separate for some servers, and are taken for separators here.
    if decoded.split(|&byte| matches!(byte, b'/' | b'\\')).any(climbs) {
        return Err(Fault::Path);
    }
    let mut plain = Vec::with_capacity(decoded.len());
    for segment in decoded.split(|&byte| byte == b'/') {
        let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        if !name.is_empty() {
            plain.push(b'/');
            plain.extend_from_slice(name);
        }
    }
    if plain.is_empty() || decoded.ends_with(b"/") {
        plain.push(b'/');
    }
    // Not every old site speaks UTF-8, and no route does anything else.
    Ok(String::from_utf8_lossy(&plain).into_owned())
}

/// Without percent-encoding. Twice encoded stays once encoded: no server decodes twice.
fn decode(path: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digit = |index: usize| after.get(index).and_then(|&byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(Fault::Path) };
        let byte = (high * 16 + low) as u8;
        if byte < 0x20 || byte == 0x7f {
            return Err(Fault::Path);
        }
        decoded.push(byte);
        rest = &after[2..];
    }
    Ok(decoded)
}

/// `.` and `..`, also with parameters (`..;x`), which some servers cut off first.
fn climbs(segment: &[u8]) -> bool {
    matches!(segment.split(|&byte| byte == b';').next(), Some(b"." | b".."))
}

#[cfg(test)]
mod tests {
    use http::{Request, header};

    use super::*;

    #[test]
    fn plain_paths_are_routed_as_they_are() {
        for path in
            ["/", "/a/b", "/a.b/c..d", "/a/", "/ä", "/.well-known/acme-challenge/x", "/a/.hidden", "/..."]
        {
            let routed = routed(&Method::GET, path).unwrap();
            assert_eq!(routed, path);
        }
        assert_eq!(routed(&Method::OPTIONS, "*").unwrap(), "/");
    }

    #[test]
    fn odd_paths_are_routed_as_their_plain_form() {
        for (path, expected) in [
            ("//admin", "/admin"),
            ("/a//b///c", "/a/b/c"),
            ("/%61dmin", "/admin"),
            ("/a%20b", "/a b"),
            ("/admin;x=1/users;y", "/admin/users"),
            ("/;x", "/"),
            ("//", "/"),
            ("/a%25b", "/a%b"),
            ("/%252e%252e/", "/%2e%2e/"),
            ("/%c3%a4/", "/ä/"),
            ("/%e4", "/\u{fffd}"),
            ("/group%2Fname", "/group/name"),
        ] {
            assert_eq!(routed(&Method::GET, path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_climbs_or_ends_early_is_refused() {
        for path in [
            "/..",
            "/../",
            "/a/../b",
            "/a/./b",
            "/.",
            "/%2e%2e/",
            "/.%2E/",
            "/%2e",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a%2f..%2fb",
            "/a%2F%2e%2e",
            "/a%5c..%5cb",
            "/a\\..\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%",
            "/a%2",
            "/a%zz",
        ] {
            assert_eq!(routed(&Method::GET, path), Err(Fault::Path), "{path}");
        }
    }

    #[test]
    fn targets_have_one_of_the_forms_of_http() {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/a?b=c/../d"),
            ("GET", "http://a.example/x"),
            ("GET", "HTTPS://a.example"),
            ("OPTIONS", "*"),
            ("CONNECT", "a.example:443"),
            ("GET", "/ä"),
            ("GET", "//a"),
            ("GET", "/{x}|y"),
        ] {
            assert_eq!(judge_written(method.as_bytes(), target.as_bytes()), Ok(()), "{method} {target}");
        }
        for (method, target) in [
            ("GET", ""),
            ("GET", "*"),
            ("GET", "a.example:443"),
            ("GET", "a"),
            ("GET", "ftp://a.example/"),
            ("GET", "http://"),
            ("GET", "http:///x"),
            ("GET", "/a#b"),
            ("GET", "/a\\b"),
            ("GET", "/a\"b"),
            ("GET", "javascript:x"),
            ("GET", "?x"),
        ] {
            assert_eq!(
                judge_written(method.as_bytes(), target.as_bytes()),
                Err(Fault::Target),
                "{method} {target}"
            );
        }
        assert_eq!(judge_written(b"GET", b"/\xff"), Err(Fault::Target));
    }

    fn head(version: Version, target: &str, fields: &[&'static str]) -> request::Parts {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.uri_mut() = target.parse().unwrap();
        for &value in fields {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn the_host_is_the_targets_else_the_only_host_field() {
        let named = |text: &'static str| Ok(Some(HeaderValue::from_static(text)));
        for (version, target, fields, expected) in [
            (Version::HTTP_11, "/", &["a.example"][..], named("a.example")),
            (Version::HTTP_11, "/", &["a.example:8080"], named("a.example:8080")),
            (Version::HTTP_11, "/", &["[::1]:80"], named("[::1]:80")),
            (Version::HTTP_11, "http://b.example/", &["B.example"], named("b.example")),
            (Version::HTTP_11, "http://b.example/", &["a.example"], Err(Fault::Host)),
            (Version::HTTP_11, "http://u@b.example/", &[], Err(Fault::Host)),
            (Version::HTTP_2, "https://c.example/", &[], named("c.example")),
            (Version::HTTP_2, "https://c.example/", &["d.example"], Err(Fault::Host)),
            (Version::HTTP_10, "/", &[], Ok(None)),
            (Version::HTTP_11, "/", &[], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a.example", "a.example"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &[""], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a/b"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a@b"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a b"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a,b"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["a:80:80"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["[::1]x"], Err(Fault::Host)),
            (Version::HTTP_11, "/", &["[x]"], Err(Fault::Host)),
        ] {
            let head = head(version, target, fields);
            let judged = host(&head, &Glance::over(&head.headers));
            assert_eq!(judged, expected, "{version:?} {target} {fields:?}");
        }
    }
}
