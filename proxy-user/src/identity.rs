//! Who asks, and under which number: the client's address and the request id.
//!
//! Both may be told by the peer, but only a peer on the entrypoint's `client_ip.trust` list is believed.

use std::{fmt::Write as _, net::IpAddr};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    address::{ClientAddr, PeerAddr},
    admission::PrefixSet,
};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over, in bytes.
const LONGEST_REQUEST_ID: usize = 128;

/// Whom an entrypoint believes about the client's address, and in which field.
#[derive(Debug)]
pub struct TrustedSource {
    pub header: HeaderName,
    pub peers: PrefixSet,
}

/// Whether what the peer says of its client is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Believed,
    NotBelieved,
}

impl TrustedSource {
    pub fn trust(source: Option<&Self>, peer: PeerAddr) -> Trust {
        match source {
            Some(source) if source.peers.contains(peer.ip()) => Trust::Believed,
            _ => Trust::NotBelieved,
        }
    }
}

/// An address, and its text as header fields and logs carry it.
#[derive(Debug, Clone)]
pub struct Spelled<T> {
    pub addr: T,
    pub text: HeaderValue,
}

/// Spells the address of a peer: once per connection, since each of its requests needs it.
pub fn spell_peer(peer: PeerAddr) -> Spelled<PeerAddr> {
    Spelled { addr: peer, text: spell(peer.ip()) }
}

/// The client's address: the peer's own, or the one that a trusted peer names.
///
/// Where the field is a list (`X-Forwarded-For`), the last entry counts: it is the one that the trusted peer added.
pub fn client_address(
    source: Option<&TrustedSource>,
    trust: Trust,
    peer: &Spelled<PeerAddr>,
    headers: &HeaderMap,
) -> Spelled<ClientAddr> {
    let named = match (source, trust) {
        (Some(source), Trust::Believed) => headers
            .get_all(&source.header)
            .iter()
            .next_back()
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.rsplit(',').next())
            .and_then(|address| address.trim().parse::<IpAddr>().ok()),
        _ => None,
    };
    match named.map(|address| address.to_canonical()) {
        Some(address) => Spelled { addr: ClientAddr(address), text: spell(address) },
        None => Spelled { addr: ClientAddr(peer.addr.ip()), text: peer.text.clone() },
    }
}

fn spell(address: IpAddr) -> HeaderValue {
    // The longest text of an address is 45 bytes (`INET6_ADDRSTRLEN` less its NUL).
    let mut text = BytesMut::with_capacity(45);
    // Writing to memory can't fail.
    let _ = write!(text, "{address}");
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// The request's id: the one that a trusted peer gave it, or a new UUIDv7 (RFC 9562), which sorts by time.
pub fn request_id(trust: Trust, headers: &HeaderMap, unix_millis: u64) -> HeaderValue {
    if trust == Trust::Believed
        && let Some(given) = headers.get(REQUEST_ID)
        && (1..=LONGEST_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return given.clone();
    }
    new_request_id(unix_millis)
}

fn new_request_id(unix_millis: u64) -> HeaderValue {
    let random = fastrand::u128(..).to_le_bytes();
    let mut tail = [0; 10];
    tail.copy_from_slice(&random[..10]);
    let id = uuid::Builder::from_unix_timestamp_millis(unix_millis, &tail).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(header: &'static str) -> TrustedSource {
        TrustedSource {
            header: HeaderName::from_static(header),
            peers: PrefixSet::new(&["173.245.48.0/20".parse().unwrap()]),
        }
    }

    fn client(header: &'static str, peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let source = source(header);
        let peer = PeerAddr(peer.parse().unwrap());
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        let trust = TrustedSource::trust(Some(&source), peer);
        let client = client_address(Some(&source), trust, &spell_peer(peer), &headers);
        assert_eq!(client.addr.to_string().as_bytes(), client.text.as_bytes());
        client.addr.to_string()
    }

    #[test]
    fn the_client_address_is_taken_from_trusted_peers_only() {
        let named = [("cf-connecting-ip", "198.51.100.7")];
        for (peer, expected) in [
            ("173.245.48.1:1", "198.51.100.7"),
            ("[::ffff:173.245.48.1]:1", "198.51.100.7"),
            ("203.0.113.9:1", "203.0.113.9"),
        ] {
            assert_eq!(client("cf-connecting-ip", peer, &named), expected, "{peer}");
        }
    }

    #[test]
    fn of_a_list_the_entry_that_the_trusted_peer_added_counts() {
        let named = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "6.6.6.6, 198.51.100.7")];
        assert_eq!(client("x-forwarded-for", "173.245.48.1:1", &named), "198.51.100.7");
    }

    #[test]
    fn nonsense_in_the_field_leaves_the_peer() {
        for value in ["", "nobody", "1.2.3", "1.2.3.4:80"] {
            let named = [("cf-connecting-ip", value)];
            assert_eq!(client("cf-connecting-ip", "173.245.48.1:1", &named), "173.245.48.1", "{value}");
        }
    }

    #[test]
    fn a_new_request_id_is_a_uuid_of_version_7() {
        let id = new_request_id(0x0123_4567_89ab);
        let id = id.to_str().unwrap();
        assert!(id.starts_with("01234567-89ab-7"), "{id}");
        assert_eq!(id.len(), 36);
        assert_ne!(new_request_id(1), new_request_id(1));
    }

    #[test]
    fn a_request_id_is_taken_over_from_trusted_peers_when_it_is_fit_for_a_log() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(request_id(Trust::Believed, &headers, 0), "abc-1");
        assert_ne!(request_id(Trust::NotBelieved, &headers, 0), "abc-1");
        headers.insert(REQUEST_ID, HeaderValue::from_static("a b"));
        assert_ne!(request_id(Trust::Believed, &headers, 0), "a b");
    }
}
