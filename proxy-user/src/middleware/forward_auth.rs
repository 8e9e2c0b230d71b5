//! Has another service decide who may pass. It is asked like any service: over the same pools, with the same health checks
//! and retries. Without its word nobody passes.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Request, header, request};
use tokio::time::timeout;

use super::{Halt, Passage, headers::forget};
use crate::{body::RequestBody, config::model, service::Service, variants::deliver};

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A login page or a reason, not a download.
const LONGEST: usize = 1 << 20;

/// The answer's body is of no interest when the request may pass; it is read for the connection's sake, if it is quick.
const READ_WITHIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct ForwardAuth {
    pub service: Arc<Service>,
    pub settings: model::ForwardAuth,
}

impl ForwardAuth {
    pub async fn admit(&self, passage: &mut Passage<'_>) -> Result<(), Halt> {
        let question = question(&self.settings, passage);
        let mut service = &self.service;
        // What the log tells is about the servers of the request itself.
        let own = passage.exchange.set_aside();
        let asked =
            deliver(passage.means, None, &mut service, &question, RequestBody::Empty, passage.exchange);
        let answer = timeout(self.settings.timeout, asked).await;
        passage.exchange.restore(own);
        let Ok(Ok(answer)) = answer else { return Err(Halt::AuthUnavailable) };
        if !answer.head.status.is_success() {
            let whole = timeout(self.settings.timeout, answer.whole(LONGEST)).await.ok().flatten();
            return Err(whole.map_or(Halt::AuthUnavailable, |answer| Halt::AuthDenied(Box::new(answer))));
        }
        let headers = &mut passage.head.headers;
        for name in &self.settings.copy {
            // Also where the service is silent about it: what it didn't say isn't true.
            forget(headers, name);
            for value in answer.head.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let _ = timeout(READ_WITHIN, answer.whole(LONGEST)).await;
        Ok(())
    }
}

/// The request as the service is asked about it: its head, and no body.
fn question(settings: &model::ForwardAuth, passage: &Passage<'_>) -> request::Parts {
    let (mut question, ()) = Request::new(()).into_parts();
    question.uri = settings.path.clone().into();
    let headers = &mut question.headers;
    headers.clone_from(&passage.head.headers);
    for of_the_body in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::RANGE]
    {
        headers.remove(of_the_body);
    }
    for conditional in
        [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE]
    {
        headers.remove(conditional);
    }
    let fallback = HeaderValue::from_static("localhost");
    headers.insert(header::HOST, passage.host.clone().unwrap_or(fallback));
    if let Ok(method) = HeaderValue::from_str(passage.head.method.as_str()) {
        headers.insert(X_FORWARDED_METHOD, method);
    }
    let target = passage.head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(target) = HeaderValue::from_str(target) {
        headers.insert(X_FORWARDED_URI, target);
    }
    question
}
