//! Compresses responses for clients that ask for it: which ones, and the head that they then have. The bytes are made in
//! [`encoder`].

pub mod encoder;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request, response};

use crate::config::model::Compress;
use encoder::Encoder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

/// What a client would take, until it is known what the server sends.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    settings: &'a Compress,
    coding: Option<Coding>,
    /// Only a head is sent, but it is the one that a GET would have.
    head_only: bool,
}

/// Texts in all but name. Media types that end with these are compressed too.
const SUFFIXES: [&str; 3] = ["+json", "+xml", "+text"];

const TYPES: [&str; 18] = [
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/rss+xml",
    "application/rtf",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "application/x-font-ttf",
];

impl Coding {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "zstd" => Some(Self::Zstd),
            "br" => Some(Self::Brotli),
            "gzip" => Some(Self::Gzip),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

impl<'a> Offer<'a> {
    pub fn new(settings: &'a Compress, head: &request::Parts) -> Self {
        // A part of a compressed body is of no use to somebody who wants a part of a plain one.
        let partial = head.headers.contains_key(header::RANGE);
        let coding = if partial { None } else { chosen(&head.headers, &settings.with) };
        Self { settings, coding, head_only: head.method == Method::HEAD }
    }

    /// Changes the head of the response, if it is one to compress; then its body goes through what this gives.
    pub fn take(&self, head: &mut response::Parts) -> Option<Encoder> {
        if !self.suits(head) {
            return None;
        }
        // Caches must know also where this client gets it plain.
        vary(&mut head.headers);
        let coding = self.coding?;
        let encoder = if self.head_only { None } else { Some(Encoder::new(coding).ok()?) };
        let headers = &mut head.headers;
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        // These are about other bytes than those that are sent.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        headers.remove("content-md5");
        weaken(headers);
        encoder
    }

    fn suits(&self, head: &response::Parts) -> bool {
        let headers = &head.headers;
        let bare = matches!(
            head.status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        );
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let kept = headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"));
        let coded = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        !bare
            && !head.status.is_informational()
            && !kept
            && !coded
            && !headers.contains_key(header::CONTENT_RANGE)
            && length.is_none_or(|length| length >= self.settings.min_size.max(1))
            && text(header::CONTENT_TYPE).is_some_and(|kind| self.is_text(kind))
    }

    fn is_text(&self, content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind.starts_with("text/")
            || TYPES.contains(&&*kind)
            || SUFFIXES.iter().any(|suffix| kind.ends_with(suffix))
            || self.settings.types.iter().any(|known| **known == *kind)
    }
}

/// The coding that the client likes best (RFC 9110 §12.5.3); of several that it likes the same, the first of ours.
fn chosen(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let mut liked: Vec<(&str, u16)> = Vec::new();
    for line in headers.get_all(header::ACCEPT_ENCODING) {
        liked.extend(line.to_str().ok()?.split(',').filter_map(weighed));
    }
    let weight =
        |name: &str| liked.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, q)| *q);
    let any = weight("*");
    let weight_of = |coding: Coding| {
        let alias = (coding == Coding::Gzip).then(|| weight("x-gzip")).flatten();
        weight(coding.name()).or(alias).or(any).unwrap_or(0)
    };
    let plain = weight("identity").unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for &coding in ours {
        let weight = weight_of(coding);
        if weight > 0 && weight >= plain && best.is_none_or(|(_, known)| weight > known) {
            best = Some((coding, weight));
        }
    }
    best.map(|(coding, _)| coding)
}

/// `gzip;q=0.5`: a name and its weight in thousandths. What is malformed is not wanted.
fn weighed(item: &str) -> Option<(&str, u16)> {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut weight = 1000;
    for parameter in parts {
        let (key, value) = parameter.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("q") {
            let value: f32 = value.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q))?;
            weight = (value * 1000.0).round() as u16;
        }
    }
    Some((name, weight))
}

fn vary(headers: &mut HeaderMap) {
    let names = headers.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok());
    let named = names.flat_map(|value| value.split(',')).any(|name| {
        let name = name.trim();
        name == "*" || name.eq_ignore_ascii_case("accept-encoding")
    });
    if !named {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The same bytes as another response no longer, but the same meaning (RFC 9110 §8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let strong = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    if let Some(weak) = strong.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok())
    {
        headers.insert(header::ETAG, weak);
    }
}

/// Of what is there as a whole.
///
/// # Errors
/// When there is no memory for it.
pub fn whole(coding: Coding, plain: &[u8]) -> std::io::Result<bytes::Bytes> {
    let mut encoder = Encoder::new(coding)?;
    encoder.write(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn settings() -> Compress {
        Compress { with: ALL.to_vec(), min_size: 100, types: vec!["application/x-own".into()] }
    }

    fn request(fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::new(());
        for &(name, value) in fields {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn the_coding_is_what_the_client_likes_best() {
        for (accepts, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("gzip", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip;q=1, br;q=0.5", Some(Coding::Gzip)),
            ("zstd;q=0, *", Some(Coding::Brotli)),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("gzip;q=2", None),
            ("gzip;q", None),
            ("deflate", None),
            ("", None),
        ] {
            let head = request(&[("accept-encoding", accepts)]);
            assert_eq!(chosen(&head.headers, &ALL), coding, "{accepts}");
        }
        assert_eq!(chosen(&HeaderMap::new(), &ALL), None);
    }

    fn response(fields: &[(&'static str, &'static str)], status: u16) -> response::Parts {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for &(name, value) in fields {
            response.headers_mut().append(name, HeaderValue::from_static(value));
        }
        response.into_parts().0
    }

    fn compressed(fields: &[(&'static str, &'static str)], status: u16) -> (bool, response::Parts) {
        let settings = settings();
        let offer = Offer::new(&settings, &request(&[("accept-encoding", "gzip")]));
        let mut head = response(fields, status);
        (offer.take(&mut head).is_some(), head)
    }

    #[test]
    fn what_is_compressed_says_so() {
        let fields = [
            ("content-type", "text/html; charset=utf-8"),
            ("content-length", "5000"),
            ("etag", "\"abc\""),
            ("vary", "Cookie"),
            ("accept-ranges", "bytes"),
        ];
        let (compressed, head) = compressed(&fields, 200);
        assert!(compressed);
        let headers = head.headers;
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["etag"], "W/\"abc\"");
        assert_eq!((headers.get("content-length"), headers.get("accept-ranges")), (None, None));
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Cookie", "Accept-Encoding"]);
    }

    #[test]
    fn what_must_not_be_compressed_is_left_alone() {
        for (fields, status, expected) in [
            (&[("content-type", "application/json")][..], 200, true),
            (&[("content-type", "application/problem+json")], 500, true),
            (&[("content-type", "Application/X-Own")], 200, true),
            (&[("content-type", "text/event-stream")], 200, true),
            (&[("content-type", "image/png")], 200, false),
            (&[("content-type", "application/grpc")], 200, false),
            (&[], 200, false),
            (&[("content-type", "text/html"), ("content-length", "99")], 200, false),
            (&[("content-type", "text/html"), ("content-encoding", "br")], 200, false),
            (&[("content-type", "text/html"), ("cache-control", "public, No-Transform")], 200, false),
            (&[("content-type", "text/html"), ("content-range", "bytes 0-1/9")], 206, false),
            (&[("content-type", "text/html")], 304, false),
            (&[("content-type", "text/html")], 204, false),
        ] {
            let (compressed, head) = compressed(fields, status);
            assert_eq!(compressed, expected, "{fields:?} {status}");
            assert_eq!(head.headers.contains_key("vary"), expected, "{fields:?} {status}");
        }
    }

    #[test]
    fn a_range_is_sent_plain_and_a_head_like_its_get() {
        let settings = settings();
        let ranged = request(&[("accept-encoding", "gzip"), ("range", "bytes=0-1")]);
        let mut head = response(&[("content-type", "text/html")], 200);
        assert!(Offer::new(&settings, &ranged).take(&mut head).is_none());
        assert_eq!(
            (head.headers.get("content-encoding"), &head.headers["vary"]),
            (None, &HeaderValue::from_static("Accept-Encoding"))
        );

        let mut asked = request(&[("accept-encoding", "gzip")]);
        asked.method = Method::HEAD;
        let mut head = response(&[("content-type", "text/html"), ("content-length", "500")], 200);
        assert!(Offer::new(&settings, &asked).take(&mut head).is_none());
        assert_eq!(head.headers["content-encoding"], "gzip");
        assert_eq!(head.headers.get("content-length"), None);
    }
}
