//! What lies beside a page: pictures, styles, fonts. Read when the configuration is loaded, and served from memory below
//! `/.weir/page/NAME/`, whatever the state of any server.

use std::{collections::HashMap, hash::Hasher};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::config::model;

/// Where assets are served; nothing else is below it.
pub const BELOW: &str = "/.weir/page/";

/// How long they may be kept: a page that is changed shows so soon, and a reload of it costs no second look.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// All pages' assets, by `NAME/FILE`.
#[derive(Debug, Default)]
pub struct Assets(HashMap<Box<str>, Asset>);

#[derive(Debug, Clone)]
struct Asset {
    bytes: Bytes,
    kind: HeaderValue,
    etag: HeaderValue,
}

// === impl Assets ===

impl Assets {
    pub fn new<'a>(pages: impl IntoIterator<Item = &'a model::Page>) -> Self {
        let each = pages.into_iter().flat_map(|page| {
            page.assets
                .iter()
                .map(|(name, bytes)| (format!("{}/{name}", page.name).into(), asset(name, bytes)))
        });
        Self(each.collect())
    }

    /// The answer to a request for something below [`BELOW`]. `None`: it takes its route, since no page has assets, or since
    /// it asks for something else. `path` is decoded.
    pub fn answer(&self, path: &str, method: &Method, asked: &HeaderMap) -> Option<Response<Bytes>> {
        if self.0.is_empty() {
            return None;
        }
        let name = path.strip_prefix(BELOW)?;
        let mut response = Response::new(Bytes::new());
        let Some(asset) = self.0.get(name) else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Some(response);
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        let headers = response.headers_mut();
        headers.insert(header::ETAG, asset.etag.clone());
        headers.insert(header::CACHE_CONTROL, KEPT);
        if is_known(asked, &asset.etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        headers.insert(header::CONTENT_TYPE, asset.kind.clone());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        *response.body_mut() = asset.bytes.clone();
        Some(response)
    }
}

fn is_known(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let listed = |value: &HeaderValue| {
        let etag = etag.as_bytes();
        value.as_bytes().split(|byte| *byte == b',').any(|one| {
            let one = one.trim_ascii();
            one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == etag
        })
    };
    asked.get_all(header::IF_NONE_MATCH).iter().any(listed)
}

fn asset(name: &str, bytes: &Bytes) -> Asset {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    let etag = format!("\"{:016x}\"", hasher.finish());
    Asset {
        bytes: bytes.clone(),
        kind: HeaderValue::from_static(content_type(name)),
        etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\"")),
    }
}

/// By the name's ending: browsers are told not to guess.
fn content_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match &*ending.to_ascii_lowercase() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assets() -> Assets {
        Assets(HashMap::from([(
            Box::from("sorry/img/logo.svg"),
            asset("img/logo.svg", &Bytes::from_static(b"<svg/>")),
        )]))
    }

    fn get(path: &str, asked: &HeaderMap) -> Option<Response<Bytes>> {
        assets().answer(path, &Method::GET, asked)
    }

    #[test]
    fn an_asset_is_served_with_its_type_and_known_again() {
        let first = get("/.weir/page/sorry/img/logo.svg", &HeaderMap::new()).unwrap();
        assert_eq!((first.status(), &first.body()[..]), (StatusCode::OK, &b"<svg/>"[..]));
        assert_eq!(first.headers()[header::CONTENT_TYPE], "image/svg+xml");
        assert_eq!(first.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let etag = first.headers()[header::ETAG].clone();
        for known in
            [etag.to_str().unwrap().to_owned(), format!("\"x\", W/{}", etag.to_str().unwrap()), "*".into()]
        {
            let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, known.parse().unwrap())]);
            let again = get("/.weir/page/sorry/img/logo.svg", &asked).unwrap();
            assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0));
        }
        let other = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("\"x\""))]);
        assert_eq!(get("/.weir/page/sorry/img/logo.svg", &other).unwrap().status(), 200);
    }

    #[test]
    fn what_is_not_there_is_not_found_and_other_paths_take_their_route() {
        for path in [
            "/.weir/page/sorry/",
            "/.weir/page/sorry/img",
            "/.weir/page/",
            "/.weir/page/x/../sorry/img/logo.svg",
        ] {
            assert_eq!(get(path, &HeaderMap::new()).unwrap().status(), 404, "{path}");
        }
        assert!(get("/", &HeaderMap::new()).is_none() && get("/.weir/pages", &HeaderMap::new()).is_none());
        assert!(Assets::default().answer("/.weir/page/x/y", &Method::GET, &HeaderMap::new()).is_none());
        let posted =
            assets().answer("/.weir/page/sorry/img/logo.svg", &Method::POST, &HeaderMap::new()).unwrap();
        assert_eq!(posted.status(), 405);
    }

    #[test]
    fn types_go_by_the_ending() {
        for (name, expected) in [
            ("a.CSS", "text/css; charset=utf-8"),
            ("a/b.woff2", "font/woff2"),
            ("noend", "application/octet-stream"),
            ("a.exe", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
