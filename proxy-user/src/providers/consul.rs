//! `kind = "consul"`: the keys below a prefix, waited on by blocking queries
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>): each asks for what comes after the index that
//! the last one gave, and is answered when there is something, or when its time is over.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{Has, Provider, Teller, Watch, backoff};
use crate::{
    config::{documents::Document, model::Consul},
    fetch::{self, Question},
};

/// Base64 and JSON around at most so many bytes of keys.
const LARGEST: usize = 32 << 20;

/// How long a query waits for a change. Consul adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);

/// And how long an answer may be on its way.
const SLACK: Duration = Duration::from_secs(15);

/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// Two answers are never closer than this: a busy store must not keep us busy.
const BREATH: Duration = Duration::from_millis(50);

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

pub struct Keys {
    pub provider: Arc<str>,
    pub source: Consul,
}

/// A key, as the API tells it.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "Key")]
    key: String,
    /// In base64; none is an empty value.
    #[serde(rename = "Value")]
    value: Option<String>,
}

impl Provider for Keys {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let mut index = 0;
            let mut known = None;
            let mut failures = 0;
            loop {
                match self.look(index).await {
                    Ok((now, documents)) => {
                        failures = 0;
                        index = next(index, now);
                        if known.as_ref() == Some(&documents) {
                            teller.same().await;
                        } else {
                            known = Some(documents.clone());
                            teller
                                .has(Has { documents, revision: Some(now.to_string()), whole: false })
                                .await;
                        }
                        sleep(BREATH).await;
                    }
                    Err(why) => {
                        failures += 1;
                        // Whoever answers next may be another server, or a new one.
                        index = 0;
                        teller.away(format!("{}: {why}", self.source.address)).await;
                        sleep(backoff::wait(failures, LONGEST, fastrand::f64())).await;
                    }
                }
            }
        })
    }
}

impl Keys {
    /// What is there, as soon as it is newer than `index`; and its index.
    async fn look(&self, index: u64) -> Result<(u64, Vec<Document>), String> {
        let url = self.url(index)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.source.token {
            let mut token =
                HeaderValue::from_bytes(&token.0).map_err(|_| "the token is no header's value")?;
            token.set_sensitive(true);
            headers.insert(TOKEN, token);
        }
        let authorities = &self.source.authorities;
        let question = Question { url: &url, known: None, headers: &headers, authorities, largest: LARGEST };
        let longest = if index == 0 { SLACK } else { WAIT + WAIT / 16 + SLACK };
        let answer = timeout(longest, fetch::once(question)).await;
        let late = |_| "it doesn't answer".to_owned();
        let answer = answer.map_err(late)?.map_err(|fault| fault.to_string())?;
        let now = answer.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok());
        match answer.status() {
            StatusCode::OK => {}
            // No key has the prefix.
            StatusCode::NOT_FOUND if now.is_some() => return Ok((now.unwrap_or(0), Vec::new())),
            StatusCode::FORBIDDEN => {
                return Err("the server answered 403: the token may not read there".into());
            }
            other => return Err(format!("the server answered {other}")),
        }
        let now = now.ok_or("the answer has no X-Consul-Index")?;
        Ok((now, documents(&self.provider, &self.source.prefix, answer.body())?))
    }

    fn url(&self, index: u64) -> Result<Uri, String> {
        let Consul { address, prefix, datacenter, .. } = &self.source;
        let mut path = format!("/v1/kv/{prefix}/?recurse=true");
        if index > 0 {
            path.push_str(&format!("&index={index}&wait={}s", WAIT.as_secs()));
        }
        if let Some(datacenter) = datacenter {
            path.push_str(&format!("&dc={datacenter}"));
        }
        let authority = address.authority().map_or("", http::uri::Authority::as_str);
        let text = format!("{}://{authority}{path}", address.scheme_str().unwrap_or("http"));
        text.parse().map_err(|error| format!("{text} is not a URL: {error}"))
    }
}

/// From where the next query goes on. An index that goes backwards is that of a store that was restored: it must not be
/// waited on with the old one. One of zero would be no blocking query at all.
fn next(before: u64, now: u64) -> u64 {
    if now < before { 0 } else { now }
}

fn documents(provider: &str, prefix: &str, body: &[u8]) -> Result<Vec<Document>, String> {
    let entries: Vec<Entry> =
        serde_json::from_slice(body).map_err(|error| format!("the answer is not a list of keys: {error}"))?;
    let mut documents = Vec::new();
    for Entry { key, value } in entries {
        let Some(name) = key.strip_prefix(prefix).map(|name| name.trim_start_matches('/')) else { continue };
        // A folder, as its user interface makes them.
        if name.is_empty() || name.ends_with('/') {
            continue;
        }
        let text = BASE64_STANDARD
            .decode(value.unwrap_or_default())
            .map_err(|error| format!("it is not base64: {error}"))
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()));
        documents.push(Document { text: text.map(Into::into), ..Document::of(provider, name, "") });
    }
    Ok(documents)
}
