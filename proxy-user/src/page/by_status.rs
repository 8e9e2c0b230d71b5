//! Which page stands in for a server's own answer, by its status: `pages = { "502-504" = "maintenance" }`.
//!
//! For people only. A program that asked for JSON, a call of gRPC, a script's request or a picture keeps what its server
//! says: it may know what to make of it.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::time::timeout;

use super::{Page, Reader, Taste};
use crate::upstream::attempt::Answer;

/// Says in browsers what an answer is for.
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What is left of an answer is read for its connection's sake, if it is no more than so much and comes within so long.
const LONGEST: u64 = 64 << 10;
const READ_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct ByStatus(Box<[(RangeInclusive<u16>, Arc<Page>)]>);

impl ByStatus {
    /// `None`: there are none.
    pub fn new(pages: impl IntoIterator<Item = (RangeInclusive<u16>, Arc<Page>)>) -> Option<Arc<Self>> {
        let pages: Box<[_]> = pages.into_iter().collect();
        (!pages.is_empty()).then(|| Arc::new(Self(pages)))
    }

    fn find(&self, status: StatusCode) -> Option<&Arc<Page>> {
        self.0.iter().find(|(range, _)| range.contains(&status.as_u16())).map(|(_, page)| page)
    }
}

/// The page for an answer with this status: the route's, else the service's.
pub fn page<'a>(
    status: StatusCode,
    route: Option<&'a Arc<ByStatus>>,
    service: Option<&'a Arc<ByStatus>>,
    reader: &Reader,
    asked: &HeaderMap,
) -> Option<&'a Arc<Page>> {
    if status.as_u16() < 400 || route.or(service).is_none() {
        return None;
    }
    let page = route.into_iter().chain(service).find_map(|pages| pages.find(status))?;
    is_for_people(reader, asked).then_some(page)
}

fn is_for_people(reader: &Reader, asked: &HeaderMap) -> bool {
    let shown = match asked.get(SEC_FETCH_DEST) {
        Some(kind) => matches!(kind.as_bytes(), b"document" | b"iframe" | b"frame"),
        None => true,
    };
    shown && matches!(reader.taste(), Taste::Html | Taste::Any)
}

/// What of an answer's head a page in its place must say too: without the challenge nobody could sign in any more.
pub fn kept(answer: &HeaderMap) -> HeaderMap {
    let kept = [header::WWW_AUTHENTICATE, header::ALLOW];
    let fields = kept
        .iter()
        .flat_map(|name| answer.get_all(name).iter().map(move |value| (name.clone(), value.clone())));
    fields.collect()
}

/// When the server wants to be asked again, if it says so in seconds.
pub fn retry_after(answer: &HeaderMap) -> Option<Duration> {
    let seconds = answer.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// Nobody gets this answer. Its connection is kept where that is cheap, and nobody waits for it.
pub fn drop_answer(mut answer: Answer) {
    if answer.lease.carrier.remaining().is_none_or(|left| left > LONGEST) {
        return;
    }
    tokio::task::spawn_local(timeout(READ_WITHIN, async move {
        while let Some(frame) = std::future::poll_fn(|cx| answer.lease.carrier.poll_frame(cx)).await {
            if frame.is_err() {
                return;
            }
        }
        answer.lease.give_back();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    fn pages(ranges: &[(RangeInclusive<u16>, &str)]) -> Option<Arc<ByStatus>> {
        ByStatus::new(ranges.iter().map(|(range, name)| {
            let page = crate::config::model::Page {
                name: (*name).into(),
                html: Bytes::new(),
                languages: Vec::new(),
                status: None,
                retry_after: Duration::from_secs(30),
                live: None,
                assets: Vec::new(),
            };
            (range.clone(), Arc::new(Page::new(&page)))
        }))
    }

    fn asked(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn found(status: u16, fields: &[(HeaderName, &'static str)]) -> Option<String> {
        let (route, service) =
            (pages(&[(503..=503, "route")]), pages(&[(500..=599, "service"), (404..=404, "lost")]));
        let asked = asked(fields);
        let status = StatusCode::from_u16(status).unwrap();
        page(status, route.as_ref(), service.as_ref(), &Reader::of(&asked), &asked)
            .map(|page| page.name.to_string())
    }

    #[test]
    fn the_routes_page_goes_before_the_services() {
        for (status, expected) in
            [(503, Some("route")), (500, Some("service")), (404, Some("lost")), (403, None), (200, None)]
        {
            assert_eq!(found(status, &[]).as_deref(), expected, "{status}");
        }
        assert!(pages(&[]).is_none());
    }

    #[test]
    fn a_challenge_and_a_time_outlive_the_answer() {
        let answer = asked(&[
            (header::WWW_AUTHENTICATE, "Basic"),
            (header::WWW_AUTHENTICATE, "Bearer"),
            (header::SET_COOKIE, "a=b"),
            (header::RETRY_AFTER, "120"),
        ]);
        assert_eq!(kept(&answer).get_all(header::WWW_AUTHENTICATE).iter().count(), 2);
        assert_eq!(kept(&answer).len(), 2);
        assert_eq!(retry_after(&answer), Some(Duration::from_secs(120)));
        let date = asked(&[(header::RETRY_AFTER, "Sat, 21 Nov 2026 12:00:00 GMT")]);
        assert_eq!(retry_after(&date), None);
    }

    #[test]
    fn programs_keep_what_their_server_says() {
        for (field, people) in [
            ((header::ACCEPT, "text/html"), true),
            ((header::ACCEPT, "*/*"), true),
            ((header::ACCEPT, "application/json"), false),
            ((header::ACCEPT, "text/plain"), false),
            ((header::CONTENT_TYPE, "application/grpc"), false),
            ((SEC_FETCH_DEST, "document"), true),
            ((SEC_FETCH_DEST, "empty"), false),
            ((SEC_FETCH_DEST, "image"), false),
        ] {
            assert_eq!(found(503, std::slice::from_ref(&field)).is_some(), people, "{field:?}");
        }
    }
}
