//! One GET, as the control side asks for lists and documents: HTTP/1.1 over TLS, conditional, bounded in time and size.
//! Whatever isn't plainly a whole answer is a fault.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    config::{
        model::{ServerProtocol, ServiceTls},
        show_size,
    },
    tls::{
        certificates::{Certificate, ServerAuthorities},
        server::ServerTls,
    },
};

/// One address of a host gets no longer than this, so that the next one has its turn.
const CONNECT: Duration = Duration::from_secs(3);

const MOST_REDIRECTS: usize = 3;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub url: &'a Uri,
    /// The entity tag of what is known already.
    pub known: Option<&'a str>,
    /// What is sent along, beside the usual. No redirect takes it to another server.
    pub headers: &'a HeaderMap,
    pub authorities: &'a ServerAuthorities,
    /// An answer's body has so many bytes at most.
    pub largest: usize,
}

/// What the server has to say.
#[derive(Debug)]
pub enum Answer {
    /// It is the one that has the entity tag that was sent.
    NotModified,
    Whole {
        body: Bytes,
        etag: Option<String>,
    },
}

/// Why there is no answer. `Display` is the end of a sentence that begins with the URL.
#[derive(Debug, thiserror::Error)]
pub enum FetchFault {
    #[error("the name {host} can't be resolved: {error}")]
    Unresolved { host: String, error: io::Error },
    #[error("no connection to {addr}: {error}")]
    Unreachable { addr: SocketAddr, error: io::Error },
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("the server broke off: {0}")]
    Broken(String),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the server answered 304, but no version was named to it")]
    NothingToCompare,
    #[error("the answer is longer than {}", show_size(*.0 as u64))]
    TooLarge(usize),
    #[error("the answer has neither a length nor chunks, so nobody can tell whether it is whole")]
    Endless,
    #[error("the answer is encoded as {0}, which was not asked for")]
    Encoded(String),
    #[error("the server sends us on to {0:?}, which is not an https:// URL")]
    Redirect(String),
    #[error("the server sends us on and on")]
    Redirects,
}

/// Asks, and follows redirects; for nothing if what is known still has its entity tag. The caller bounds the time.
///
/// # Errors
/// When there is no whole answer.
pub async fn get(question: Question<'_>) -> Result<Answer, FetchFault> {
    let none = HeaderMap::new();
    let mut url = question.url.clone();
    for _ in 0..=MOST_REDIRECTS {
        let same = url.scheme() == question.url.scheme() && url.authority() == question.url.authority();
        let headers = if same { question.headers } else { &none };
        let (response, _connection) = ask(Question { url: &url, headers, ..question }).await?;
        match response.status() {
            StatusCode::OK => {
                let (head, body) = whole(response, question.largest).await?.into_parts();
                let etag = head.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
                return Ok(Answer::Whole { body, etag: etag.map(str::to_owned) });
            }
            StatusCode::NOT_MODIFIED if question.known.is_some() => return Ok(Answer::NotModified),
            StatusCode::NOT_MODIFIED => return Err(FetchFault::NothingToCompare),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => url = onward(&url, response.headers())?,
            other => return Err(FetchFault::Status(other)),
        }
    }
    Err(FetchFault::Redirects)
}

/// Asks once, and gives the answer with its head, whatever its status. The caller bounds the time.
///
/// # Errors
/// When there is no whole answer.
pub async fn once(question: Question<'_>) -> Result<Response<Bytes>, FetchFault> {
    let (response, _connection) = ask(question).await?;
    whole(response, question.largest).await
}

/// An answer whose body is read as it comes.
#[derive(Debug)]
pub struct Opened {
    response: Response<Incoming>,
    _connection: Driver,
}

impl Opened {
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next piece of the body; nothing at its end. Safe to cancel.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchFault> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// All of it.
    ///
    /// # Errors
    /// When it breaks off, or has more than `largest` bytes.
    pub async fn whole(self, largest: usize) -> Result<Bytes, FetchFault> {
        whole(self.response, largest).await.map(Response::into_body)
    }
}

/// Asks once, as who the certificate says, and gives the answer as soon as its head is there, whatever its status. The caller
/// bounds the time.
///
/// # Errors
/// When there is no answer.
pub async fn open(
    question: Question<'_>,
    certificate: Option<Arc<Certificate>>,
) -> Result<Opened, FetchFault> {
    let (response, connection) = ask_as(question, certificate).await?;
    Ok(Opened { response, _connection: connection })
}

/// Drives a connection beside the exchange on it; ends with it.
#[derive(Debug)]
pub struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(question: Question<'_>) -> Result<(Response<Incoming>, Driver), FetchFault> {
    ask_as(question, None).await
}

async fn ask_as(
    question: Question<'_>,
    certificate: Option<Arc<Certificate>>,
) -> Result<(Response<Incoming>, Driver), FetchFault> {
    let Question { url, authorities, .. } = question;
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let encrypted = url.scheme_str() != Some("http");
    let stream = connect(host, url.port_u16().unwrap_or(if encrypted { 443 } else { 80 })).await?;
    if !encrypted {
        return exchange(stream, question).await;
    }
    let tls = |error: &dyn std::fmt::Display| FetchFault::Tls(error.to_string());
    let server_name = ServerName::try_from(host.to_owned()).map_err(|error| tls(&error))?;
    let speak = ServerTls::new(&ServiceTls { server_name, authorities: authorities.clone(), certificate });
    let stream = speak
        .map_err(|error| tls(&error))?
        .connect(stream, ServerProtocol::Http1)
        .await
        .map_err(|error| tls(&error))?;
    exchange(stream, question).await
}

/// The first address of the host that answers.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, FetchFault> {
    let unresolved = |error| FetchFault::Unresolved { host: host.to_owned(), error };
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(unresolved)?;
    let mut last = unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for addr in addresses {
        match timeout(CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = FetchFault::Unreachable { addr, error },
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer");
                last = FetchFault::Unreachable { addr, error };
            }
        }
    }
    Err(last)
}

/// Asks over a stream that somebody else has opened. The answer's body is still to come.
///
/// # Errors
/// When there is no answer's head.
pub async fn exchange<S>(
    stream: S,
    Question { url, known, headers, .. }: Question<'_>,
) -> Result<(Response<Incoming>, Driver), FetchFault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let mut request = Request::get(url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .header(header::HOST, url.authority().map_or("", http::uri::Authority::as_str))
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::ACCEPT_ENCODING, "identity");
    if let Some(etag) = known {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let mut request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchFault::Broken(format!("it can't be asked: {error}")))?;
    request.headers_mut().extend(headers.clone());
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    Ok((response, driver))
}

/// The body, if it is there to its end.
///
/// # Errors
/// When it isn't, or is too large.
pub async fn whole(response: Response<Incoming>, largest: usize) -> Result<Response<Bytes>, FetchFault> {
    let (head, mut body) = response.into_parts();
    if let Some(encoding) =
        head.headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity")
    {
        return Err(FetchFault::Encoded(String::from_utf8_lossy(encoding.as_bytes()).into_owned()));
    }
    // Such a body ends when the connection does, whatever the reason; the others are checked by hyper.
    let bounded = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|field| head.headers.contains_key(field));
    if !bounded {
        return Err(FetchFault::Endless);
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > largest {
            return Err(FetchFault::TooLarge(largest));
        }
        bytes.extend_from_slice(data);
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}

/// Where a redirect leads: within the host, or to https. Never to what others could have written on the way.
fn onward(from: &Uri, headers: &HeaderMap) -> Result<Uri, FetchFault> {
    let to = headers.get(header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned());
    let to = to.unwrap_or_default();
    let refused = || FetchFault::Redirect(to.chars().take(200).collect());
    let absolute = match (to.strip_prefix('/'), from.scheme(), from.authority()) {
        (Some(rest), Some(scheme), Some(authority)) if !rest.starts_with('/') => {
            format!("{scheme}://{authority}{to}")
        }
        _ => to.clone(),
    };
    let url: Uri = absolute.parse().map_err(|_| refused())?;
    if url.scheme_str() == Some("https") && url.host().is_some() { Ok(url) } else { Err(refused()) }
}

/// hyper's own words name the kind of fault; the reason is in what caused it.
fn broken(error: &hyper::Error) -> FetchFault {
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    FetchFault::Broken(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Asks a server that answers each connection with the next of `answers`, byte for byte, and closes it.
    async fn asked(
        answers: &[&str],
        known: Option<&str>,
        largest: usize,
    ) -> (Result<Answer, FetchFault>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/list?v=4", listener.local_addr().unwrap()).parse().unwrap();
        let serve = async {
            let mut first = String::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                first = String::from_utf8_lossy(&request[..length]).into_owned();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                drop(stream.read(&mut request).await);
            }
            first
        };
        let none = HeaderMap::new();
        let authorities = ServerAuthorities::System;
        let get = get(Question { url: &url, known, headers: &none, authorities: &authorities, largest });
        let (answer, request) = tokio::join!(timeout(Duration::from_secs(5), get), serve);
        (answer.unwrap(), request)
    }

    async fn fault_of(answer: &str) -> String {
        match asked(&[answer], Some("\"1\""), 1000).await.0 {
            Ok(answer) => panic!("believed: {answer:?}"),
            Err(fault) => fault.to_string(),
        }
    }

    #[tokio::test]
    async fn a_list_comes_with_its_entity_tag_and_is_asked_for_with_the_one_before() {
        let answer = "HTTP/1.1 200 OK\r\nETag: W/\"2\"\r\nContent-Length: 3\r\n\r\nabc";
        let (answer, request) = asked(&[answer], Some("\"1\""), 1000).await;
        let Ok(Answer::Whole { body, etag }) = answer else { panic!("{answer:?}") };
        assert_eq!((&*body, etag.as_deref()), (&b"abc"[..], Some("W/\"2\"")));
        assert!(request.starts_with("GET /list?v=4 HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
        assert!(request.contains("if-none-match: \"1\"\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_list_in_chunks_is_whole_with_its_last_chunk() {
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let (answer, _) = asked(&[&format!("{chunks}0\r\n\r\n")], None, 1000).await;
        assert!(matches!(answer, Ok(Answer::Whole { ref body, .. }) if &**body == b"abc"), "{answer:?}");
        assert!(fault_of(chunks).await.starts_with("the server broke off"));
    }

    #[tokio::test]
    async fn a_304_confirms_what_is_known_and_nothing_else() {
        let answer = "HTTP/1.1 304 Not Modified\r\n\r\n";
        assert!(matches!(asked(&[answer], Some("\"1\""), 1000).await.0, Ok(Answer::NotModified)));
        assert!(matches!(asked(&[answer], None, 1000).await.0, Err(FetchFault::NothingToCompare)));
    }

    #[tokio::test]
    async fn what_is_not_plainly_a_whole_list_is_a_fault() {
        for (answer, fault) in [
            (
                "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
                "the server answered 500 Internal Server Error",
            ),
            ("HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\na", "the server answered 206 Partial Content"),
            ("HTTP/1.1 204 None\r\n\r\n", "the server answered 204 No Content"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "the server broke off"),
            ("HTTP/1.1 200 OK\r\n\r\nabc", "the answer has neither a length nor chunks"),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na",
                "the answer is encoded as gzip",
            ),
            (
                "HTTP/1.1 302 F\r\nLocation: http://a.example/\r\nContent-Length: 0\r\n\r\n",
                "the server sends us on to",
            ),
            ("HTTP/1.1 302 F\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", "the server sends us on to"),
            ("HTTP/1.1 302 F\r\nContent-Length: 0\r\n\r\n", "the server sends us on to"),
            ("", "the server broke off"),
            ("SSH-2.0-OpenSSH_9\r\n", "the server broke off"),
        ] {
            let said = fault_of(answer).await;
            assert!(said.starts_with(fault), "{said}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{}", "a".repeat(1001));
        assert_eq!(fault_of(&long).await, "the answer is longer than 1000B");
    }

    #[test]
    fn a_redirect_leads_to_https_or_nowhere() {
        let to = |from: &str, location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            onward(&from.parse().unwrap(), &headers).map(|url| url.to_string()).ok()
        };
        assert_eq!(to("https://a.example/x", "/y?z").as_deref(), Some("https://a.example/y?z"));
        assert_eq!(to("https://a.example/x", "https://b.example/y").as_deref(), Some("https://b.example/y"));
        for location in ["http://a.example/y", "//b.example/y", "y", "", "ftp://a.example/y"] {
            assert_eq!(to("https://a.example/x", location), None, "{location}");
        }
        assert_eq!(to("http://a.example/x", "/y"), None);
    }

    #[tokio::test]
    async fn nobody_there_is_a_fault_that_names_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("http://{free}/").parse().unwrap();
        let (headers, authorities) = (&HeaderMap::new(), &ServerAuthorities::System);
        let question = Question { url: &url, known: None, headers, authorities, largest: 1000 };
        let fault = get(question).await.unwrap_err().to_string();
        assert!(fault.starts_with(&format!("no connection to {free}")), "{fault}");
    }
}
