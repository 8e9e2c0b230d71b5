//! The pages that Weir serves itself. They are in memory before the first request comes: an answer of last resort
//! must not depend on a disk, a template engine or an upstream. A page may come from a service of one's own all the same
//! ([`live`]); what is in memory then stands behind it.

pub mod assets;
pub mod built_in;
pub mod by_status;
pub mod live;
pub mod reader;
pub mod show;
pub mod template;
pub mod why;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{access_log::Exchange, config::model};

pub use built_in::{ERROR_HTML, MAINTENANCE_HTML};
pub use reader::{Reader, Taste};

use live::Live;
use template::{Template, Values};

/// Nothing but what stands in the page itself.
const STRICT: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
);

#[derive(Debug)]
pub struct Page {
    pub name: Arc<str>,
    /// The first one is for whoever wants none of the others.
    texts: Box<[Text]>,
    status: Option<StatusCode>,
    retry_after: Duration,
    /// Built in: it needs nothing from elsewhere, and browsers are told so.
    own: bool,
    pub live: Option<Live>,
}

#[derive(Debug)]
struct Text {
    /// `None`: it doesn't say.
    language: Option<Box<str>>,
    template: Template,
}

/// What a page takes the place of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Occasion {
    /// The answer that it replaces; `None`: there is none.
    pub status: Option<StatusCode>,
    /// So long it will go on, as far as that is known.
    pub left: Option<Duration>,
}

/// What every page may tell of its request.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    pub request_id: &'a HeaderValue,
    pub host: Option<&'a HeaderValue>,
    pub at: SystemTime,
}

// === impl Told ===

impl<'a> Told<'a> {
    pub fn of(exchange: &'a Exchange) -> Self {
        Self { request_id: &exchange.request_id, host: exchange.host.as_ref(), at: exchange.began_at }
    }
}

// === impl Page ===

impl Page {
    pub fn new(page: &model::Page) -> Self {
        let text = |language: Option<Box<str>>, html| Text { language, template: Template::new(html) };
        let first = text(language_of(&page.html), &page.html);
        let others = page.languages.iter().map(|(name, html)| text(Some(Box::from(&**name)), html));
        Self {
            name: page.name.clone(),
            texts: std::iter::once(first).chain(others).collect(),
            status: page.status,
            retry_after: page.retry_after,
            own: *page.html == *MAINTENANCE_HTML.as_bytes() || *page.html == *ERROR_HTML.as_bytes(),
            live: page.live.as_ref().map(Live::new),
        }
    }

    /// With which status it is served: its own; else that of the answer that it replaces; else 503. Never 502 or 504 unless
    /// somebody wrote so: CDNs replace the bodies of those.
    pub fn status(&self, occasion: Occasion) -> StatusCode {
        self.status.unwrap_or(match occasion.status {
            None | Some(StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Some(status) => status,
        })
    }

    /// The page as its reader wants it. Never stored.
    pub fn answer(&self, reader: &Reader, told: Told<'_>, occasion: Occasion) -> Response<Bytes> {
        let status = self.status(occasion);
        let retry_after = self.retry_after(occasion);
        let mut response = match reader.taste() {
            Taste::Html | Taste::Any => self.html(reader, told, status, retry_after),
            Taste::Json => problem(status, told),
            Taste::Text => plain_words(status, told),
            Taste::Grpc => grpc(reader, StatusCode::OK, status),
        };
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.into());
        }
        kept_by_nobody(&mut response, told);
        response
    }

    /// Whole seconds, rounded up: whoever comes back then must not be too early.
    pub fn retry_after(&self, occasion: Occasion) -> u64 {
        let left = occasion.left.unwrap_or(self.retry_after);
        (left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1)
    }

    fn html(&self, reader: &Reader, told: Told<'_>, status: StatusCode, retry_after: u64) -> Response<Bytes> {
        let text = &self.texts[self.language(reader)];
        let words = built_in::words(status);
        let mut response = Response::new(text.template.fill(&Values {
            request_id: told.request_id.as_bytes(),
            retry_after,
            // A page that stays up for hours still looks now and then whether it is over sooner.
            refresh: retry_after.min(self.retry_after.as_secs().max(1)),
            host: told.host.map_or(b"", HeaderValue::as_bytes),
            status,
            at: told.at,
            title: words.title,
            text: words.text,
        }));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        if self.own {
            headers.insert(header::CONTENT_SECURITY_POLICY, STRICT);
        }
        if let Some(language) = text.language.as_ref().and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(header::CONTENT_LANGUAGE, language);
        }
        response
    }

    fn language(&self, reader: &Reader) -> usize {
        if self.texts.len() == 1 {
            return 0;
        }
        let known: Vec<&str> =
            self.texts.iter().map(|text| text.language.as_deref().unwrap_or_default()).collect();
        reader.language(&known).unwrap_or(0)
    }
}

/// Weir's own answer to a request that leads nowhere, or that it refuses: a page for browsers, a line for the rest.
/// `page`: the one for errors.
pub fn refusal(status: StatusCode, page: &Page, reader: &Reader, told: Told<'_>) -> Response<Bytes> {
    let mut response = match reader.taste() {
        _ if !(status.is_client_error() || status.is_server_error()) => {
            return plain(status, told.request_id);
        }
        Taste::Any | Taste::Text => return plain(status, told.request_id),
        Taste::Html => page.html(reader, told, status, page.retry_after(Occasion::default())),
        Taste::Json => problem(status, told),
        // The status stays: clients of gRPC read it too, and so does the log.
        Taste::Grpc => grpc(reader, status, status),
    };
    kept_by_nobody(&mut response, told);
    response
}

/// A line of text.
pub fn plain(status: StatusCode, request_id: &HeaderValue) -> Response<Bytes> {
    let mut response = text(status, format!("{status}\n"));
    kept_by_nobody(&mut response, Told { request_id, host: None, at: SystemTime::UNIX_EPOCH });
    response
}

/// The answer to HEAD: its head alone, with the length that the body would have.
pub fn without_body(response: &mut Response<Bytes>) {
    let length = response.body().len();
    if length > 0 {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Bytes::new();
    }
}

fn kept_by_nobody(response: &mut Response<Bytes>, told: Told<'_>) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(crate::identity::REQUEST_ID, told.request_id.clone());
}

fn text(status: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn plain_words(status: StatusCode, told: Told<'_>) -> Response<Bytes> {
    let words = built_in::words(status);
    let id = String::from_utf8_lossy(told.request_id.as_bytes());
    text(status, format!("{status}\n\n{}.\n{}\n\nRequest id: {id}\n", words.title, words.text))
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, told: Told<'_>) -> Response<Bytes> {
    let document = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": built_in::words(status).text,
        "request_id": String::from_utf8_lossy(told.request_id.as_bytes()),
    });
    let mut response = text(status, document.to_string());
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// An answer without messages, which tells how the call ended in its head.
fn grpc(reader: &Reader, status: StatusCode, meaning: StatusCode) -> Response<Bytes> {
    // As gRPC itself translates HTTP's.
    let (code, message) = match meaning.as_u16() {
        400 => ("13", "the request can't be understood"),
        401 => ("16", "not authenticated"),
        403 => ("7", "not permitted"),
        404 => ("12", "nothing is there"),
        413 | 431 => ("8", "too large"),
        408 => ("4", "too slow"),
        429 => ("14", "too many requests"),
        500..=599 => ("14", "no server is available"),
        _ => ("2", "refused"),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = reader.grpc().cloned();
    headers.insert(header::CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/grpc")));
    headers.insert("grpc-status", HeaderValue::from_static(code));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}

/// As the page says it of itself: `<html lang="de">`.
fn language_of(html: &[u8]) -> Option<Box<str>> {
    let start = &html[..html.len().min(2048)];
    let tag = memchr::memmem::find(start, b"<html")?;
    let end = tag + memchr::memchr(b'>', &start[tag..])?;
    let value = std::str::from_utf8(&start[tag..end]).ok()?.split_once("lang=")?.1;
    let value = value.trim_start_matches(['"', '\'']);
    let name = value.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next()?;
    (2..=35).contains(&name.len()).then(|| name.into())
}

#[cfg(test)]
mod tests;
