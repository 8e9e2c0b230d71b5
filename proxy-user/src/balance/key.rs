//! What a request is hashed by.

use std::net::IpAddr;

use http::request;

use super::hash;
use crate::{config::model::HashKey, cookies};

/// The hash of a request's key; where it has none, of its client.
pub fn of(key: &HashKey, head: &request::Parts, client: IpAddr) -> u64 {
    let found = match key {
        HashKey::Client => None,
        HashKey::Path => Some(head.uri.path().as_bytes()),
        HashKey::Header(name) => head.headers.get(name).map(http::HeaderValue::as_bytes),
        HashKey::Cookie(name) => cookies::value(&head.headers, name),
        HashKey::Query(name) => head.uri.query().and_then(|query| parameter(query, name)).map(str::as_bytes),
    };
    found.map_or_else(|| of_client(client), hash::of)
}

/// Of IPv6, a household's /64 is one client: within it, addresses change by the day.
pub fn of_client(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(ip) => hash::of(&ip.octets()),
        IpAddr::V6(ip) => hash::of(&ip.octets()[..8]),
    }
}

/// As it is written, still percent-encoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn a_key_is_what_it_says_and_a_request_without_it_goes_by_its_client() {
        let request = Request::get("/cart/7?user=alice&other=1")
            .header("x-user", "bob")
            .header("cookie", "session=carol")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let client = "192.0.2.7".parse().unwrap();
        let by = |key: HashKey| of(&key, &head, client);
        assert_eq!(by(HashKey::Path), hash::of(b"/cart/7"));
        assert_eq!(by(HashKey::Query("user".into())), hash::of(b"alice"));
        assert_eq!(by(HashKey::Header("x-user".parse().unwrap())), hash::of(b"bob"));
        assert_eq!(by(HashKey::Cookie("session".into())), hash::of(b"carol"));
        let by_client = hash::of(&[192, 0, 2, 7]);
        for absent in [
            HashKey::Client,
            HashKey::Query("use".into()),
            HashKey::Header("x-absent".parse().unwrap()),
            HashKey::Cookie("other".into()),
        ] {
            assert_eq!(by(absent.clone()), by_client, "{absent}");
        }
        let within = |text: &str| of(&HashKey::Client, &head, text.parse().unwrap());
        assert_eq!(within("2001:db8::1"), within("2001:db8::2"));
        assert_ne!(within("2001:db8::1"), within("2001:db8:0:1::1"));
    }
}
