//! The API server, as far as Weir asks it: list, and watch (<https://kubernetes.io/docs/reference/using-api/api-concepts>).
//!
//! Two GETs over [`crate::fetch`], in the place of the crate kube with its client and runtime: those would add some fifty
//! crates and three quarters of a minute to a build, their watcher goes on asking for a version that the server has answered
//! 410 to when a watch begins, and its bookmarks, which tell that what is known is current, stay inside.

use std::{env, path::Path, time::Duration};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::cluster::Kind;
use crate::{
    config::model::{Access, ApiServer, ApiToken},
    fetch::{self, Opened, Question},
    tls::certificates::{self, ServerAuthorities},
};

/// Where a pod finds who it is.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Objects in one answer to a list. More are asked for with a token for what follows.
const PAGE: usize = 500;

/// What such an answer may have. An object has 1.5 MiB at most, and usually a few KiB.
const LARGEST: usize = 256 << 20;

/// What an event of a watch may have: an object and little more.
const LONGEST_LINE: usize = 8 << 20;

/// How long an answer may take to begin, and a page of a list to come.
const PATIENCE: Duration = Duration::from_secs(10);
const PAGE_PATIENCE: Duration = Duration::from_secs(60);

/// How many seconds a watch lasts before the server ends it.
const WATCH: u64 = 280;

/// There are bookmarks about every minute. A server that sends nothing for longer may be gone: it is asked again.
const SILENCE: Duration = Duration::from_secs(75);

/// Objects of one kind, in one namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub kind: Kind,
    pub namespace: Option<String>,
}

/// All there is, as of a version.
#[derive(Debug)]
pub struct Listed {
    pub objects: Vec<Value>,
    pub version: String,
    /// Where the API has this kind.
    pub root: &'static str,
}

/// Why there is no answer that could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server doesn't know the kind.
    Absent,
    /// What was asked for is too old: everything has to be listed anew.
    Gone,
    /// Why, as the end of a sentence.
    Other(String),
}

/// An event of a watch.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// An object is new or has changed.
    Put(Value),
    Gone(Value),
    /// Nothing is new, up to a version.
    Bookmark,
}

/// A watch that has begun.
#[derive(Debug)]
pub struct Watching {
    answer: Opened,
    bytes: BytesMut,
    /// Up to where no line ends.
    looked: usize,
    /// Of what came last.
    pub version: String,
}

#[derive(Debug)]
pub struct Api {
    pub access: Access,
}

/// A page of a list.
#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Value,
}

/// What the API says of a failure.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: u16,
}

// === impl Scope ===

impl Scope {
    fn path(&self, root: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.kind.plural()),
            None => format!("{root}/{}", self.kind.plural()),
        }
    }

    /// What is looked at of a kind.
    fn selector(&self) -> &'static str {
        match self.kind {
            Kind::Secret => "&fieldSelector=type%3Dkubernetes.io%2Ftls",
            _ => "",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} of namespace `{namespace}`", self.kind.plural()),
            None => write!(f, "{} of all namespaces", self.kind.plural()),
        }
    }
}

// === impl Api ===

impl Api {
    /// All objects of a scope, page by page.
    pub async fn list(&self, scope: &Scope) -> Result<Listed, Fault> {
        let mut last = Fault::Absent;
        for root in scope.kind.roots() {
            match self.list_at(root, scope).await {
                Err(Fault::Absent) => last = Fault::Absent,
                other => return other,
            }
        }
        Err(last)
    }

    async fn list_at(&self, root: &'static str, scope: &Scope) -> Result<Listed, Fault> {
        let mut objects = Vec::new();
        let mut more = String::new();
        loop {
            let path = format!("{}?limit={PAGE}{}{more}", scope.path(root), scope.selector());
            let answer = self.ask(&path).await?;
            let body = timeout(PAGE_PATIENCE, answer.whole(LARGEST)).await;
            let body = body
                .map_err(|_| Fault::Other("its answer doesn't come to an end".to_owned()))?
                .map_err(|fault| Fault::Other(fault.to_string()))?;
            let page: Page = serde_json::from_slice(&body)
                .map_err(|error| Fault::Other(format!("its answer is no list: {error}")))?;
            // Objects of a list don't say which kind they are of; neither does anybody ask.
            objects.extend(page.items.unwrap_or_default());
            let PageMetadata { resource_version: version, r#continue } = page.metadata;
            if r#continue.is_empty() {
                if version.is_empty() {
                    return Err(Fault::Other("its list has no resourceVersion".to_owned()));
                }
                return Ok(Listed { objects, version, root });
            }
            more = format!("&continue={}", escaped(&r#continue));
        }
    }

    /// What happens after a version.
    pub async fn watch(&self, root: &str, scope: &Scope, version: &str) -> Result<Watching, Fault> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH}&resourceVersion={}{}",
            scope.path(root),
            escaped(version),
            scope.selector()
        );
        let answer = self.ask(&path).await?;
        Ok(Watching { answer, bytes: BytesMut::new(), looked: 0, version: version.to_owned() })
    }

    /// An answer that is one of success.
    async fn ask(&self, path: &str) -> Result<Opened, Fault> {
        let answer = timeout(PATIENCE, self.open(path)).await;
        let answer =
            answer.map_err(|_| Fault::Other("it doesn't answer".to_owned()))?.map_err(Fault::Other)?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let body = timeout(PATIENCE, answer.whole(1 << 20)).await;
        let said =
            body.ok().and_then(Result::ok).and_then(|body| serde_json::from_slice::<Status>(&body).ok());
        let said = said.map(|said| said.message).filter(|message| !message.is_empty());
        let said = said.map(|message| format!(": {message}")).unwrap_or_default();
        Err(match status {
            StatusCode::NOT_FOUND => Fault::Absent,
            StatusCode::GONE => Fault::Gone,
            StatusCode::FORBIDDEN => Fault::Other(format!(
                "the server answered 403{said}; the rights that Weir needs are in docs/kubernetes.md"
            )),
            other => Fault::Other(format!("the server answered {other}{said}")),
        })
    }

    async fn open(&self, path: &str) -> Result<Opened, String> {
        let in_cluster;
        let server = match &self.access {
            Access::At(server) => &**server,
            Access::InCluster => {
                in_cluster = in_cluster_server().await?;
                &in_cluster
            }
        };
        let ApiServer { address, authorities, token, certificate } = server;
        let authority = address.authority().map_or("", http::uri::Authority::as_str);
        let url: Uri = format!("{}://{authority}{path}", address.scheme_str().unwrap_or("https"))
            .parse()
            .map_err(|error| format!("{path} is no path: {error}"))?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, bearer(token).await?);
        }
        let question = Question { url: &url, known: None, headers: &headers, authorities, largest: LARGEST };
        fetch::open(question, certificate.clone()).await.map_err(|fault| fault.to_string())
    }

    /// For people.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.access {
            Access::At(server) => server.address.to_string(),
            Access::InCluster => "the cluster's API server".to_owned(),
        }
    }
}

async fn in_cluster_server() -> Result<ApiServer, String> {
    let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (said("KUBERNETES_SERVICE_HOST"), said("KUBERNETES_SERVICE_PORT")) else {
        return Err(
            "this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set): `kubeconfig` or `address` of the provider \
             says where the API server is"
                .to_owned(),
        );
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let address =
        format!("https://{host}:{port}").parse().map_err(|_| format!("{host}:{port} is no address"))?;
    let file = Path::new(ACCOUNT).join("ca.crt");
    let text =
        tokio::fs::read(&file).await.map_err(|error| format!("{} can't be read: {error}", file.display()))?;
    let roots = certificates::authorities_of(&file, &text).map_err(|fault| fault.to_string())?;
    Ok(ApiServer {
        address,
        authorities: ServerAuthorities::Own(roots),
        token: Some(ApiToken::File(Path::new(ACCOUNT).join("token"))),
        certificate: None,
    })
}

async fn bearer(token: &ApiToken) -> Result<HeaderValue, String> {
    let bytes = match token {
        ApiToken::Said(secret) => secret.0.to_vec(),
        ApiToken::File(path) => tokio::fs::read(path)
            .await
            .map_err(|error| format!("the token {} can't be read: {error}", path.display()))?,
    };
    let value = [b"Bearer ", bytes.trim_ascii()].concat();
    let mut value =
        HeaderValue::from_bytes(&value).map_err(|_| "the token is no header's value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// For a query. What the server gave back is not ours to read.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

// === impl Watching ===

impl Watching {
    /// The next event; nothing when the server has ended the watch in its time. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Event>, Fault> {
        let silent = |_| Fault::Other("the watch fell silent".to_owned());
        loop {
            if let Some(line) = self.line() {
                if let Some(event) = self.read(&line)? {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.bytes.len() > LONGEST_LINE {
                return Err(Fault::Other(format!(
                    "an event of the watch has more than {LONGEST_LINE} bytes"
                )));
            }
            let more = timeout(SILENCE, self.answer.next()).await.map_err(silent)?;
            match more.map_err(|fault| Fault::Other(fault.to_string()))? {
                Some(bytes) => self.bytes.extend_from_slice(&bytes),
                // What follows a cut line is asked for anew, from the version before it.
                None => return Ok(None),
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        match self.bytes[self.looked..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.bytes.split_to(self.looked + at);
                self.bytes.advance(1);
                self.looked = 0;
                Some(line)
            }
            None => {
                self.looked = self.bytes.len();
                None
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<Event>, Fault> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let Line { r#type, object } = serde_json::from_slice(line)
            .map_err(|error| Fault::Other(format!("what the watch says makes no sense: {error}")))?;
        if r#type == "ERROR" {
            let Status { message, code } =
                serde_json::from_value(object).unwrap_or(Status { message: String::new(), code: 0 });
            return Err(match code {
                410 => Fault::Gone,
                _ => Fault::Other(format!("the watch was ended: {code} {message}")),
            });
        }
        if let Some(version) =
            object["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty())
        {
            version.clone_into(&mut self.version);
        }
        Ok(match &*r#type {
            "ADDED" | "MODIFIED" => Some(Event::Put(object)),
            "DELETED" => Some(Event::Gone(object)),
            "BOOKMARK" => Some(Event::Bookmark),
            // A later API may say more.
            _ => None,
        })
    }
}
