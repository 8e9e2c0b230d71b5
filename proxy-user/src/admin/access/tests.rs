use super::*;

const OWN: u32 = 990;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn tcp(from: &str, certificate: bool) -> Peer {
    Peer::Tcp { from: from.parse().unwrap(), certificate }
}

fn asked(
    peer: Peer,
    token: Token,
    method: &Method,
    path: &str,
    lines: &[(&'static str, &'static str)],
) -> Result<(), Denied> {
    may(peer, token, Ask { method, path, headers: &headers(lines) }, OWN)
}

const LOCAL: (&str, &str) = ("host", "127.0.0.1:9190");
const JSON: (&str, &str) = ("content-type", "application/json");
const STATUS: &str = "/api/v1/status";
const DRAIN: &str = "/api/v1/drain";

#[test]
fn over_a_socket_all_may_read_and_root_and_the_daemons_user_give_orders() {
    for (uid, may_order) in [(Some(0), true), (Some(OWN), true), (Some(1000), false), (None, false)] {
        let peer = Peer::Unix { uid };
        assert_eq!(asked(peer, Token::None, &Method::GET, STATUS, &[]), Ok(()));
        let ordered = asked(peer, Token::None, &Method::POST, DRAIN, &[]);
        assert_eq!(ordered, if may_order { Ok(()) } else { Err(Denied::NotTheOwner) }, "{peer:?}");
        assert_eq!(asked(peer, Token::Right, &Method::POST, DRAIN, &[]), Ok(()), "who knows the token");
    }
}

#[test]
fn a_browser_that_reaches_the_socket_through_a_tunnel_gives_no_orders_for_other_pages() {
    let root = Peer::Unix { uid: Some(0) };
    for (host, origin, may_order) in [
        ("localhost:9190", "http://localhost:9190", true),
        ("localhost:9190", "https://evil.example", false),
        ("localhost:9190", "null", false),
        ("evil.example:9190", "http://evil.example:9190", false),
    ] {
        let ordered = asked(root, Token::None, &Method::POST, DRAIN, &[("host", host), ("origin", origin)]);
        assert_eq!(ordered, if may_order { Ok(()) } else { Err(Denied::OtherSite) }, "{origin} at {host}");
    }
}

#[test]
fn over_tcp_orders_take_the_token_or_a_certificate_wherever_they_come_from() {
    for from in ["127.0.0.1:5000", "[::1]:5000", "192.0.2.1:5000", "[::ffff:127.0.0.1]:5000"] {
        let refused = asked(tcp(from, false), Token::None, &Method::POST, DRAIN, &[LOCAL, JSON]);
        assert!(matches!(refused, Err(Denied::OrdersNeedToken | Denied::NoToken)), "{from}: {refused:?}");
        assert_eq!(asked(tcp(from, false), Token::Right, &Method::POST, DRAIN, &[LOCAL, JSON]), Ok(()));
        assert_eq!(asked(tcp(from, true), Token::None, &Method::POST, DRAIN, &[LOCAL, JSON]), Ok(()));
    }
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let refused = asked(tcp("127.0.0.1:1", false), Token::None, &method, STATUS, &[LOCAL, JSON]);
        assert_eq!(refused, Err(Denied::OrdersNeedToken), "{method}");
    }
}

#[test]
fn from_elsewhere_reading_takes_the_token_too() {
    let peer = tcp("192.0.2.1:5000", false);
    assert_eq!(asked(peer, Token::None, &Method::GET, STATUS, &[LOCAL]), Err(Denied::NoToken));
    assert_eq!(asked(peer, Token::Wrong, &Method::GET, STATUS, &[LOCAL]), Err(Denied::WrongToken));
    assert_eq!(asked(peer, Token::Right, &Method::GET, STATUS, &[]), Ok(()));
    for path in ["/ping", "/ready", "/api/ping", "/api/v1/ready", "/", "/dashboard", "/dashboard.js"] {
        assert_eq!(asked(peer, Token::None, &Method::GET, path, &[]), Ok(()), "{path}");
    }
    for path in ["/api/v1/pingx", "/ping/", "/api/v1/v1/status", "/metrics"] {
        assert_eq!(asked(peer, Token::None, &Method::GET, path, &[]), Err(Denied::NoToken), "{path}");
    }
}

#[test]
fn a_wrong_token_is_refused_where_none_would_do() {
    let peer = tcp("127.0.0.1:5000", false);
    assert_eq!(asked(peer, Token::Wrong, &Method::GET, STATUS, &[LOCAL]), Err(Denied::WrongToken));
}

#[test]
fn who_brings_no_token_calls_this_host_by_its_own_name() {
    let peer = tcp("127.0.0.1:5000", false);
    for (host, may_read) in [
        ("127.0.0.1:9190", true),
        ("127.0.0.1", true),
        ("127.5.5.5:1", true),
        ("localhost", true),
        ("LOCALHOST:9190", true),
        ("[::1]:9190", true),
        ("[::1]", true),
        ("evil.example:9190", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("127.0.0.1:x.evil.example", false),
        ("192.0.2.1:9190", false),
        ("", false),
    ] {
        let asked = asked(peer, Token::None, &Method::GET, STATUS, &[("host", host)]);
        assert_eq!(asked.is_ok(), may_read, "{host}: {asked:?}");
    }
    assert_eq!(asked(peer, Token::None, &Method::GET, STATUS, &[]), Err(Denied::OtherName));
    assert_eq!(asked(peer, Token::Right, &Method::GET, STATUS, &[("host", "edge1.example:9190")]), Ok(()));
}

#[test]
fn orders_are_json_and_from_nobody_elses_page() {
    let peer = tcp("192.0.2.1:5000", true);
    let host = ("host", "edge.example:9190");
    for (lines, expected) in [
        (&[host, JSON][..], Ok(())),
        (&[host, ("content-type", "application/json; charset=utf-8")], Ok(())),
        (&[host], Err(Denied::NotJson)),
        (&[host, ("content-type", "text/plain")], Err(Denied::NotJson)),
        (&[host, JSON, ("origin", "https://edge.example:9190")], Ok(())),
        (&[host, JSON, ("origin", "https://evil.example")], Err(Denied::OtherSite)),
        (&[host, JSON, ("origin", "null")], Err(Denied::OtherSite)),
        (&[host, JSON, ("sec-fetch-site", "same-origin")], Ok(())),
        (&[host, JSON, ("sec-fetch-site", "cross-site")], Err(Denied::OtherSite)),
        (&[host, JSON, ("sec-fetch-site", "same-site")], Err(Denied::OtherSite)),
    ] {
        assert_eq!(asked(peer, Token::None, &Method::POST, DRAIN, lines), expected, "{lines:?}");
    }
}

#[test]
fn a_token_is_right_only_as_a_whole() {
    let known = Secret(b"0123456789abcdef0123456789abcdef"[..].into());
    for (sent, expected) in [
        ("Bearer 0123456789abcdef0123456789abcdef", Token::Right),
        ("bearer  0123456789abcdef0123456789abcdef ", Token::Right),
        ("Bearer 0123456789abcdef0123456789abcde", Token::Wrong),
        ("Bearer 0123456789abcdef0123456789abcdef0", Token::Wrong),
        ("Bearer ", Token::Wrong),
        ("Bearer", Token::Wrong),
        ("Basic 0123456789abcdef0123456789abcdef", Token::Wrong),
        ("0123456789abcdef0123456789abcdef", Token::Wrong),
    ] {
        assert_eq!(token(&headers(&[("authorization", sent)]), Some(&known)), expected, "{sent}");
        let without = token(&headers(&[("authorization", sent)]), None);
        assert_eq!(without, Token::Wrong, "no token is known: {sent}");
    }
    assert_eq!(token(&HeaderMap::new(), Some(&known)), Token::None);
}
