//! `kind = "http"`: documents that are fetched again and again. An entity tag spares the body when nothing has changed.

use std::{collections::BTreeMap, sync::Arc};

use http::Uri;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{Has, Provider, Teller, Watch, backoff};
use crate::{
    allowlists::schedule,
    config::{documents::Document, model::HttpSource, show_duration},
    fetch::{self, Answer, Question},
};

/// All documents together.
const LARGEST: usize = 16 << 20;

pub struct Polled {
    pub provider: Arc<str>,
    pub source: HttpSource,
}

impl Provider for Polled {
    fn watch(self: Box<Self>, teller: Teller) -> Watch {
        Box::pin(async move {
            let mut etag = None;
            let mut failures = 0;
            loop {
                let pause = match self.look(etag.as_deref()).await {
                    Ok(None) => {
                        failures = 0;
                        teller.same().await;
                        schedule::delay(self.source.every, 0, fastrand::f64())
                    }
                    Ok(Some(has)) => {
                        failures = 0;
                        etag.clone_from(&has.revision);
                        teller.has(has).await;
                        schedule::delay(self.source.every, 0, fastrand::f64())
                    }
                    Err(why) => {
                        failures += 1;
                        teller.away(format!("{}: {why}", self.source.url)).await;
                        backoff::wait(failures, self.source.every, fastrand::f64())
                    }
                };
                sleep(pause).await;
            }
        })
    }
}

impl Polled {
    /// What there is now; nothing, if it still has that entity tag.
    async fn look(&self, etag: Option<&str>) -> Result<Option<Has>, String> {
        let HttpSource { url, timeout: longest, headers, authorities, .. } = &self.source;
        let question = Question { url, known: etag, headers, authorities, largest: LARGEST };
        let answer = timeout(*longest, fetch::get(question)).await;
        let late = |_| format!("it took longer than {}", show_duration(*longest));
        match answer.map_err(late)?.map_err(|fault| fault.to_string())? {
            Answer::NotModified => Ok(None),
            Answer::Whole { body, etag } => {
                let documents = documents(&self.provider, url, &body)?;
                Ok(Some(Has { documents, revision: etag, whole: false }))
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    documents: BTreeMap<String, String>,
}

/// One document in TOML, which never begins with a brace; or several in JSON, which always does.
fn documents(provider: &str, url: &Uri, body: &[u8]) -> Result<Vec<Document>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the answer is not UTF-8 text".to_owned())?;
    if !text.trim_start().starts_with('{') {
        let name = url.path().rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("document");
        return Ok(vec![Document::of(provider, name, text)]);
    }
    let several: Several = serde_json::from_str(text).map_err(|error| {
        format!("the answer is not `{{ \"documents\": {{ \"NAME\": \"TEXT\" }} }}`: {error}")
    })?;
    Ok(several.documents.into_iter().map(|(name, text)| Document::of(provider, &name, text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<(String, String)>, String> {
        let url = Uri::from_static("https://config.example.com/edge/shop.toml?v=1");
        let all = documents("remote", &url, body.as_bytes())?;
        Ok(all
            .into_iter()
            .map(|one| (one.origin.display().to_string(), one.text.unwrap().to_string()))
            .collect())
    }

    #[test]
    fn one_document_is_toml_and_is_called_as_the_url_ends() {
        assert_eq!(read("[a]\n").unwrap(), [("remote:shop.toml".to_owned(), "[a]\n".to_owned())]);
    }

    #[test]
    fn several_come_in_json_by_name() {
        let both = read(r#"{ "documents": { "b/x.toml": "[b]", "a.toml": "" } }"#).unwrap();
        let names: Vec<_> = both.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["remote:a.toml", "remote:b/x.toml"]);
    }

    #[test]
    fn what_is_neither_is_a_fault_that_says_what_is_wanted() {
        for body in ["{", "{\"documents\": [1]}", "{\"document\": {}}"] {
            assert!(read(body).unwrap_err().contains("\"documents\""), "{body}");
        }
        assert!(documents("remote", &Uri::from_static("/"), b"\xff").unwrap_err().contains("UTF-8"));
    }
}
