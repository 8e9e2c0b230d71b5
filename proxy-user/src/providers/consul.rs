//! `kind = "consul"`: the keys below a prefix, waited on ([`query`]).

pub mod query;

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use tokio::time::sleep;

use super::{Has, Provider, Teller, Watch, backoff};
use crate::config::{documents::Document, model::Consul};
use query::{BREATH, LONGEST, Query, next};

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
        let Consul { address, prefix, datacenter, token, authorities } = &self.source;
        let query = Query { address, token: token.as_ref(), authorities };
        let path = format!("/v1/kv/{prefix}/?recurse=true");
        match query.ask(&path, datacenter.as_deref(), index).await? {
            (now, Some(body)) => Ok((now, documents(&self.provider, prefix, &body)?)),
            // No key has the prefix.
            (now, None) => Ok((now, Vec::new())),
        }
    }
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
            .map_err(|error| format!("can't be read: it is not base64: {error}"))
            .and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| "can't be read: it is not UTF-8 text".to_owned())
            });
        documents.push(Document { text: text.map(Into::into), ..Document::of(provider, name, "") });
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
        time::timeout,
    };

    use super::*;
    use crate::{
        config::model::Secret,
        providers::{Said, Word},
        tls::certificates::ServerAuthorities,
    };

    /// An answer as Consul's documentation shows it.
    fn answer(index: u64, keys: &[(&str, &str)]) -> String {
        let entry = |(key, value): &(&str, &str)| {
            let value = BASE64_STANDARD.encode(value);
            format!(
                "{{\"LockIndex\":0,\"Key\":\"{key}\",\"Flags\":0,\"Value\":\"{value}\",\"CreateIndex\":7,\"ModifyIndex\":{index}}}"
            )
        };
        let body = format!("[{}]", keys.iter().map(entry).collect::<Vec<_>>().join(","));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\nX-Consul-Knownleader: true\r\n\
             X-Consul-Lastcontact: 0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// What a provider says while a Consul gives one of these answers to each query; and the queries.
    async fn told(answers: Vec<String>, words: usize) -> (Vec<Word>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let source = Consul {
            address,
            prefix: "weir".into(),
            datacenter: Some("dc2".into()),
            token: Some(Secret(b"s3cret"[..].into())),
            authorities: ServerAuthorities::System,
        };
        let queries = Arc::new(Mutex::new(Vec::new()));
        let seen = queries.clone();
        let serve = async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                seen.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let (say, mut heard) = mpsc::channel::<Said>(8);
        let provider = Arc::<str>::from("kv");
        let watch =
            Box::new(Keys { provider: provider.clone(), source }).watch(Teller { provider, number: 1, say });
        let listen = async {
            let mut all = Vec::new();
            while all.len() < words {
                all.push(heard.recv().await.unwrap().word);
            }
            all
        };
        let words = tokio::select! {
            words = timeout(Duration::from_secs(10), listen) => words.unwrap(),
            () = watch => unreachable!("it never ends"),
            () = serve => unreachable!("it never ends"),
        };
        let queries = queries.lock().unwrap().clone();
        (words, queries)
    }

    fn texts(word: &Word) -> Vec<(String, Option<String>)> {
        let Word::Has(has) = word else { panic!("{word:?}") };
        let text = |one: &Document| one.text.as_ref().ok().map(ToString::to_string);
        has.documents.iter().map(|one| (one.origin.display().to_string(), text(one))).collect()
    }

    #[tokio::test]
    async fn keys_are_documents_and_each_query_goes_on_from_the_last_index() {
        let first = answer(47, &[("weir/", ""), ("weir/a.toml", "[a]"), ("weir/shop/b.toml", "")]);
        let second = answer(48, &[("weir/a.toml", "[b]")]);
        let (words, queries) = told(vec![first, second.clone(), second], 3).await;
        assert_eq!(
            texts(&words[0]),
            [("kv:a.toml".into(), Some("[a]".into())), ("kv:shop/b.toml".into(), Some(String::new()))]
        );
        assert_eq!(texts(&words[1]), [("kv:a.toml".into(), Some("[b]".into()))]);
        assert_eq!(words[2], Word::Same);
        assert!(
            queries[0].starts_with("GET /v1/kv/weir/?recurse=true&dc=dc2 HTTP/1.1\r\n"),
            "{}",
            queries[0]
        );
        assert!(queries[1].contains("recurse=true&index=47&wait=60s&dc=dc2 "), "{}", queries[1]);
        assert!(queries[2].contains("&index=48&"), "{}", queries[2]);
        assert!(queries[0].contains("x-consul-token: s3cret\r\n"));
    }

    #[tokio::test]
    async fn an_index_that_goes_backwards_and_a_failure_begin_anew() {
        let failed = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned();
        let one = |index| answer(index, &[("weir/a", "1")]);
        let (words, queries) = told(vec![one(90), one(12), one(13), failed, one(14)], 5).await;
        assert!(!queries[2].contains("index="), "the store was restored: {}", queries[2]);
        assert!(queries[3].contains("&index=13&"));
        assert!(!queries[4].contains("index="), "whoever answers next may be new: {}", queries[4]);
        assert!(matches!(&words[3], Word::Away(why) if why.contains("the server answered 500")), "{words:?}");
        assert_eq!(words[4], Word::Same);
    }

    #[test]
    fn what_is_no_text_is_told_with_its_key_and_the_others_count() {
        let body = r#"[{"Key":"weir/x","Value":"/w=="},{"Key":"weir/y","Value":null},{"Key":"other/z","Value":null}]"#;
        let all = documents("kv", "weir", body.as_bytes()).unwrap();
        let faults: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.text.is_err())).collect();
        assert_eq!(faults, [("x", true), ("y", false)]);
        assert!(documents("kv", "weir", b"{}").unwrap_err().contains("not a list of keys"));
    }
}
