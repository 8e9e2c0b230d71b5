//! A page that a service of one's own makes. It is asked like any service, over the same pools and by its own health; when it
//! can't answer at once, what is in memory does.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header, request, uri::PathAndQuery};
use tokio::time::timeout;

use super::{Reader, Told, why::Why};
use crate::{
    access_log::Exchange,
    body::RequestBody,
    config::model,
    snapshot::Snapshot,
    upstream::attempt::{Answer, Means},
    variants::deliver,
};

/// Tells the service why it is asked.
const X_WEIR_PAGE: HeaderName = HeaderName::from_static("x-weir-page");

/// A page, not a download.
const LONGEST: usize = 1 << 20;

/// Where a page comes from.
#[derive(Debug)]
pub struct Live {
    service: model::ServiceId,
    path: PathAndQuery,
    timeout: Duration,
}

// === impl Live ===

impl Live {
    pub fn new(live: &model::LivePage) -> Self {
        Self { service: live.service, path: live.path.clone(), timeout: live.timeout }
    }

    /// The page, if it comes in time: only a whole answer with status 200 is one.
    pub async fn fetch(
        &self,
        snapshot: &Snapshot,
        means: Means<'_>,
        reader: &Reader,
        why: Why,
        exchange: &mut Exchange,
    ) -> Option<Response<Bytes>> {
        let mut service = snapshot.services.get(self.service.0)?;
        let question = self.question(reader, Told::of(exchange), why);
        // What the log tells is about the servers of the request itself.
        let own = exchange.set_aside();
        let answer = timeout(self.timeout, async {
            let delivery = deliver(means, None, &mut service, &question, RequestBody::Empty, exchange);
            let answer = delivery.await.ok()?;
            if answer.head.status != http::StatusCode::OK { None } else { whole(answer).await }
        });
        let answer = answer.await.ok().flatten();
        exchange.restore(own);
        answer
    }

    fn question(&self, reader: &Reader, told: Told<'_>, why: Why) -> request::Parts {
        let (mut question, ()) = Request::new(()).into_parts();
        question.uri = self.path.clone().into();
        let headers = &mut question.headers;
        let host = told.host.cloned();
        headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
        headers.insert(crate::identity::REQUEST_ID, told.request_id.clone());
        headers.insert(X_WEIR_PAGE, HeaderValue::from_static(why.name()));
        reader.tell(headers);
        question
    }
}

/// What a page needs of an answer: its body, and how it is to be read.
async fn whole(answer: Answer) -> Option<Response<Bytes>> {
    let (head, body) = answer.whole(LONGEST).await?.into_parts();
    let mut response = Response::new(body);
    let of_use = [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_SECURITY_POLICY,
    ];
    for name in of_use {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Some(response)
}
