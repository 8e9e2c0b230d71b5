//! Questions to a Consul, by blocking queries (<https://developer.hashicorp.com/consul/api-docs/features/blocking>): each asks
//! for what comes after the index that the last one gave, and is answered when there is something, or when its time is over.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio::time::timeout;

use crate::{
    config::model::Secret,
    fetch::{self, Question},
    tls::certificates::ServerAuthorities,
};

/// JSON, and base64 in it, around at most so many bytes.
const LARGEST: usize = 32 << 20;

/// How long a query waits for a change. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);

/// And how long an answer may be on its way.
const SLACK: Duration = Duration::from_secs(15);

/// The longest pause after failures.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Two answers are never closer than this: a busy store must not keep us busy.
pub const BREATH: Duration = Duration::from_millis(50);

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// Whom to ask.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub address: &'a Uri,
    pub token: Option<&'a Secret>,
    pub authorities: &'a ServerAuthorities,
}

impl Query<'_> {
    /// What is there, as soon as it is newer than `index`, if that isn't 0; and its index. None: the server knows no such
    /// thing.
    pub async fn ask(
        &self,
        path: &str,
        datacenter: Option<&str>,
        index: u64,
    ) -> Result<(u64, Option<Bytes>), String> {
        let url = self.url(path, datacenter, index)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = self.token {
            let mut token =
                HeaderValue::from_bytes(&token.0).map_err(|_| "the token is no header's value")?;
            token.set_sensitive(true);
            headers.insert(TOKEN, token);
        }
        let question = Question {
            url: &url,
            known: None,
            headers: &headers,
            authorities: self.authorities,
            largest: LARGEST,
        };
        let longest = if index == 0 { SLACK } else { WAIT + WAIT / 16 + SLACK };
        let answer = timeout(longest, fetch::once(question)).await;
        let late = |_| "it doesn't answer".to_owned();
        let answer = answer.map_err(late)?.map_err(|fault| fault.to_string())?;
        let now = answer.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND if now.is_some() => return Ok((now.unwrap_or(0), None)),
            StatusCode::FORBIDDEN => {
                return Err("the server answered 403: the token may not read there".into());
            }
            other => return Err(format!("the server answered {other}")),
        }
        let now = now.ok_or("the answer has no X-Consul-Index")?;
        Ok((now, Some(answer.into_body())))
    }

    fn url(&self, path: &str, datacenter: Option<&str>, index: u64) -> Result<Uri, String> {
        let mut path = path.to_owned();
        let mut add = |what: String| {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&what);
        };
        if index > 0 {
            add(format!("index={index}&wait={}s", WAIT.as_secs()));
        }
        if let Some(datacenter) = datacenter {
            add(format!("dc={datacenter}"));
        }
        let authority = self.address.authority().map_or("", http::uri::Authority::as_str);
        let text = format!("{}://{authority}{path}", self.address.scheme_str().unwrap_or("http"));
        text.parse().map_err(|error| format!("{text} is not a URL: {error}"))
    }
}

/// From where the next query goes on. An index that goes backwards is that of a store that was restored: it must not be
/// waited on with the old one. One of zero would be no blocking query at all.
pub fn next(before: u64, now: u64) -> u64 {
    if now < before { 0 } else { now }
}
