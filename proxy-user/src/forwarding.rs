//! What a proxy must do to header fields: take off those that belong to one hop (RFC 9110 §7.6.1), and tell the
//! server who asked (`X-Forwarded-*`, `X-Real-IP`, `X-Request-Id`).

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::Scheme};

use crate::{
    identity::{REQUEST_ID, Trust},
    tls::client,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields about the client that only Weir or a trusted peer may set. A client can't name them away in
/// `Connection`, nor slip them in under another spelling (`X_Forwarded_For`, which CGI and WSGI read as the same).
const MANAGED: [HeaderName; 11] = [
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_FORWARDED_PORT,
    X_REAL_IP,
    CF_CONNECTING_IP,
    REQUEST_ID,
    header::FORWARDED,
    client::VERIFIED,
    client::SUBJECT,
    client::FINGERPRINT,
];

/// What the server is told about where a request came from.
#[derive(Debug)]
pub struct Origin<'a> {
    pub peer: &'a HeaderValue,
    pub client: &'a HeaderValue,
    pub trust: Trust,
    pub scheme: &'a Scheme,
    pub host: Option<&'a HeaderValue>,
    pub request_id: &'a HeaderValue,
}

/// Makes a client's fields those that the server gets.
pub fn towards_server(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let found = Found::among(headers);
    strip_hop_by_hop(headers, &found);
    if found.underscore {
        strip_look_alikes(headers);
    }
    if found.expect {
        // The client waits for `100 Continue` from us, and gets it when its body is first read.
        headers.remove(header::EXPECT);
    }
    if found.certificate {
        // Nobody but Weir knows it; a trusted peer would only pass on what its client says.
        for name in [client::VERIFIED, client::SUBJECT, client::FINGERPRINT] {
            headers.remove(name);
        }
    }
    match origin.trust {
        Trust::NotBelieved => {
            if found.claims {
                for name in [header::FORWARDED, CF_CONNECTING_IP, X_FORWARDED_PORT, X_FORWARDED_HOST] {
                    headers.remove(name);
                }
            }
            headers.insert(X_FORWARDED_FOR, origin.peer.clone());
            headers.insert(X_FORWARDED_PROTO, scheme_value(origin.scheme));
            if let Some(host) = origin.host {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
        }
        Trust::Believed => {
            append_forwarded_for(headers, origin.peer);
            if !headers.contains_key(X_FORWARDED_PROTO) {
                headers.insert(X_FORWARDED_PROTO, scheme_value(origin.scheme));
            }
            if let (false, Some(host)) = (headers.contains_key(X_FORWARDED_HOST), origin.host) {
                headers.insert(X_FORWARDED_HOST, host.clone());
            }
        }
    }
    headers.insert(X_REAL_IP, origin.client.clone());
    headers.insert(REQUEST_ID, origin.request_id.clone());
}

/// Takes out of a request's trailers what may only stand in its head: whoever reads both as one would believe it.
pub fn trailers_towards_server(trailers: &mut HeaderMap) {
    let found = Found::among(trailers);
    strip_hop_by_hop(trailers, &found);
    if found.underscore {
        strip_look_alikes(trailers);
    }
    for name in MANAGED.iter().chain(&[
        header::HOST,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::AUTHORIZATION,
        header::COOKIE,
    ]) {
        trailers.remove(name);
    }
}

/// Makes a server's fields those that the client gets.
pub fn towards_client(headers: &mut HeaderMap, request_id: &HeaderValue) {
    strip_hop_by_hop(headers, &Found::in_answer(headers));
    headers.insert(REQUEST_ID, request_id.clone());
}

/// What there is to do with a set of fields. Most have nothing to strip, and one look at the names that are there is
/// cheaper than asking for a dozen that are not.
#[derive(Debug, Default)]
struct Found {
    connection: bool,
    te: bool,
    hop_by_hop: bool,
    expect: bool,
    /// Something is said of where the request came from.
    claims: bool,
    /// Something is said of the client's certificate.
    certificate: bool,
    underscore: bool,
}

impl Found {
    /// What matters of an answer.
    fn in_answer(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            // The length tells most names apart from these.
            if matches!(name.as_str().len(), 2 | 7 | 10 | 16 | 17 | 18 | 19) {
                found.is_of_one_hop(name.as_str());
            }
        }
        found
    }

    fn is_of_one_hop(&mut self, name: &str) -> bool {
        match name {
            "connection" => self.connection = true,
            "te" => self.te = true,
            "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection" => self.hop_by_hop = true,
            _ => return false,
        }
        true
    }

    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                name if found.is_of_one_hop(name) => {}
                "expect" => found.expect = true,
                "forwarded" | "cf-connecting-ip" | "x-forwarded-port" | "x-forwarded-host" => {
                    found.claims = true;
                }
                "x-client-cert-verified" | "x-client-cert-subject" | "x-client-cert-fingerprint" => {
                    found.certificate = true;
                }
                other => found.underscore |= other.contains('_'),
            }
        }
        found
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap, found: &Found) {
    // What most connections say names nothing else than what goes anyway.
    let usual = |value: &HeaderValue| matches!(value.as_bytes(), b"keep-alive" | b"close");
    if found.connection && headers.get_all(header::CONNECTION).iter().all(usual) {
        headers.remove(header::CONNECTION);
    } else if found.connection {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Host and the framing of the message can't be named away, nor what Weir vouches for.
            .filter(|name| {
                !MANAGED.contains(name) && *name != header::HOST && *name != header::CONTENT_LENGTH
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if found.hop_by_hop {
        for name in [
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            header::PROXY_AUTHENTICATE,
            header::PROXY_AUTHORIZATION,
            KEEP_ALIVE,
            PROXY_CONNECTION,
        ] {
            headers.remove(name);
        }
    }
    // `trailers` concerns the whole way, and gRPC insists on it.
    if found.te
        && headers.get(header::TE).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        headers.remove(header::TE);
    }
}

fn strip_look_alikes(headers: &mut HeaderMap) {
    let look_alike = |name: &HeaderName| {
        let dashed = name.as_str().replace('_', "-");
        dashed != name.as_str() && MANAGED.iter().any(|managed| managed.as_str() == dashed)
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| look_alike(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    if chain.is_empty() {
        headers.insert(X_FORWARDED_FOR, peer.clone());
        return;
    }
    chain.extend_from_slice(peer.as_bytes());
    headers.insert(
        X_FORWARDED_FOR,
        HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).unwrap_or(peer.clone()),
    );
}

fn scheme_value(scheme: &Scheme) -> HeaderValue {
    if *scheme == Scheme::HTTPS {
        HeaderValue::from_static("https")
    } else {
        HeaderValue::from_static("http")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_on(trust: Trust, fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        let host = HeaderValue::from_static("app.example.com");
        let origin = Origin {
            peer: &HeaderValue::from_static("173.245.48.1"),
            client: &HeaderValue::from_static("198.51.100.7"),
            trust,
            scheme: &Scheme::HTTPS,
            host: Some(&host),
            request_id: &HeaderValue::from_static("id-1"),
        };
        towards_server(&mut headers, &origin);
        let mut fields: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        fields.sort();
        fields
    }

    fn is(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    const REBUILT: [(&str, &str); 5] = [
        ("x-forwarded-for", "173.245.48.1"),
        ("x-forwarded-host", "app.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "198.51.100.7"),
        ("x-request-id", "id-1"),
    ];

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let said = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "22"),
            ("x-real-ip", "10.0.0.1"),
            ("cf-connecting-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-request-id", "evil"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x-client-cert-verified", "SUCCESS"),
            ("x_client_cert_subject", "CN=evil"),
            ("cf_connecting-ip", "10.0.0.1"),
        ];
        assert_eq!(sent_on(Trust::NotBelieved, &said), is(&REBUILT));
    }

    #[test]
    fn a_trusted_chain_is_kept_and_grows() {
        let said = [
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "10.9.9.9"),
            ("x-forwarded-proto", "http"),
        ];
        assert_eq!(
            sent_on(Trust::Believed, &said),
            is(&[
                ("x-forwarded-for", "198.51.100.7, 10.9.9.9, 173.245.48.1"),
                ("x-forwarded-host", "app.example.com"),
                ("x-forwarded-proto", "http"),
                ("x-real-ip", "198.51.100.7"),
                ("x-request-id", "id-1"),
            ])
        );
    }

    #[test]
    fn a_trusted_peer_is_not_believed_about_its_clients_certificate() {
        let said = [("x-client-cert-verified", "SUCCESS"), ("x-client-cert-fingerprint", "00")];
        assert_eq!(sent_on(Trust::Believed, &said), is(&REBUILT));
    }

    #[test]
    fn fields_of_one_hop_and_those_named_by_connection_go() {
        let said = [
            ("connection", "close, X-Private, x-forwarded-for, host"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
        ];
        assert_eq!(sent_on(Trust::NotBelieved, &said), is(&REBUILT));
    }

    #[test]
    fn trailers_carry_nothing_that_belongs_in_a_head() {
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil.example"),
            ("connection", "x-signature"),
            ("x-signature", "1"),
            ("grpc-status", "0"),
        ] {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        trailers_towards_server(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn te_trailers_stays_for_grpc() {
        let said = [("te", "trailers")];
        assert!(sent_on(Trust::NotBelieved, &said).contains(&("te".into(), "trailers".into())));
    }
}
