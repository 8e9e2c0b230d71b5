//! The server that stands behind the edge in a lab: `weir-lab upstream`.
//!
//! | path | answer |
//! |---|---|
//! | `/` and anything else | a line with the server's name |
//! | `/health` | 200, or whatever `/retire` has asked for |
//! | `/retire?how=404` | from now on `/health` is answered with 404; `how=header`: with 200 and `x-drain`; `how=not`: as before |
//! | `/status/503` | that status |
//! | `/slow?ms=500` | the line, after that time; with `&at=two`, if that is the server's name, else at once |
//! | `/bytes?n=1000` | so many bytes, with a length; `/chunked?n=1000` without one |
//! | `/drip?n=5&ms=100` | so many short chunks with pauses between them |
//! | `/headers` | the request's header as JSON: name → list of values |
//! | `/hop` | a response that carries hop-by-hop fields |
//! | `/text?n=1000` | so many bytes of text, with a media type, a length and an entity tag |
//! | `/events?n=5&ms=100` | as `/drip`, as server-sent events |
//! | `/auth` | 200 and `x-user: alice` if the request has `x-pass: yes`, else 302 to `/login`; with the request's `x-forwarded-uri` in `x-asked` |
//! | POST `/echo` | the request's body, as it comes in |
//! | POST `/count` | how many bytes the body had |
//! | POST `/early` | 413 at once, while the body is still coming |
//! | `/mirrored` | how many requests carried `x-weir-mirrored` so far, and how many bytes their bodies had |
//! | `/reset` | no answer: the connection is reset |
//!
//! Every answer has the server's name in `x-upstream`, the number of its connection in `x-connection` and the request's
//! version in `x-version`.

mod bodies;
mod websocket;

pub use bodies::Zeros;

use std::{
    convert::Infallible,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::HeaderValue,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use nix::sys::socket::{setsockopt, sockopt::Linger};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use bodies::Drip;

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    pub name: String,
    pub listen: SocketAddr,
    /// Address, certificate chain, key.
    pub tls: Option<(SocketAddr, (PathBuf, PathBuf))>,
}

/// Serves until it is killed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let name: Arc<str> = Arc::from(options.name.as_str());
    let plain = listen(options.listen).await?;
    if let Some((address, (chain, key))) = &options.tls {
        let secure = listen(*address).await?;
        let acceptor = acceptor(chain, key)?;
        tokio::spawn(accept(secure, Some(acceptor), Arc::clone(&name)));
    }
    // Whoever started this waits for a line.
    #[expect(clippy::print_stdout, reason = "the line is the sign of readiness")]
    {
        println!("ready");
    }
    accept(plain, None, name).await;
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))
}

fn acceptor(chain: &PathBuf, key: &PathBuf) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, name: Arc<str>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Small answers in two writes would wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else { continue };
        let (tls, name) = (tls.clone(), Arc::clone(&name));
        tokio::spawn(async move {
            match tls {
                None => converse(stream, socket, name).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, socket, name).await;
                    }
                }
            }
        });
    }
}

async fn converse<S>(stream: S, socket: OwnedFd, name: Arc<str>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let socket = Arc::new(socket);
    let service = service_fn(move |request: Request<Incoming>| {
        let version = format!("{:?}", request.version());
        let answer = answer(request, Arc::clone(&name), Arc::clone(&socket));
        async move {
            let mut answer = answer.await?;
            for (field, value) in [("x-connection", number.to_string()), ("x-version", version)] {
                if let Ok(value) = value.parse() {
                    answer.headers_mut().insert(field, value);
                }
            }
            Ok::<_, ResetMe>(answer)
        }
    });
    // A peer that goes away is none of the server's business.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The connection is to be reset: hyper drops it on an error.
#[derive(Debug)]
struct ResetMe;

impl std::fmt::Display for ResetMe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is to be reset")
    }
}

impl std::error::Error for ResetMe {}

/// Copies that a proxy has sent.
static MIRRORED: AtomicU64 = AtomicU64::new(0);
static MIRRORED_BYTES: AtomicU64 = AtomicU64::new(0);

async fn answer(request: Request<Incoming>, name: Arc<str>, socket: Arc<OwnedFd>) -> Result<Answer, ResetMe> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |key: &str, default: u64| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
            .unwrap_or(default)
    };
    let path = request.uri().path().to_owned();
    if request.headers().contains_key("x-weir-mirrored") {
        let length = request.body().size_hint().exact().unwrap_or_default();
        MIRRORED.fetch_add(1, Ordering::Relaxed);
        MIRRORED_BYTES.fetch_add(length, Ordering::Relaxed);
    }
    let mut response = match path.as_str() {
        _ if websocket::is_asked_for(&request) => websocket::echo(request),
        "/mirrored" => {
            let [requests, bytes] = [&MIRRORED, &MIRRORED_BYTES].map(|count| count.load(Ordering::Relaxed));
            whole(format!("{requests} {bytes}"))
        }
        "/slow" => {
            let at = query.split('&').find_map(|pair| pair.strip_prefix("at="));
            if at.is_none_or(|at| at == &*name) {
                tokio::time::sleep(Duration::from_millis(number("ms", 1000))).await;
            }
            line(&name)
        }
        "/bytes" => Response::new(Zeros { left: number("n", 65536), told: true }.map_err(never).boxed()),
        "/chunked" => Response::new(Zeros { left: number("n", 65536), told: false }.map_err(never).boxed()),
        "/drip" => {
            let pause = Duration::from_millis(number("ms", 100));
            Response::new(Drip { left: number("n", 5), pause, next: None }.map_err(never).boxed())
        }
        "/text" => text(number("n", 1000)),
        "/events" => {
            let pause = Duration::from_millis(number("ms", 100));
            let drip = Drip { left: number("n", 5), pause, next: None };
            let mut response = Response::new(drip.map_err(never).boxed());
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        }
        "/health" => health(&name),
        "/retire" => {
            let how = ["not", "404", "header"].iter().position(|how| query == format!("how={how}"));
            RETIRED.store(how.unwrap_or_default(), Ordering::Relaxed);
            line(&name)
        }
        "/auth" => auth(&request),
        "/headers" => headers(&request),
        "/hop" => hop(&name),
        "/echo" => Response::new(request.into_body().boxed()),
        "/early" => {
            // Read on, or the kernel would reset the connection and the answer would be lost on the way.
            tokio::spawn(count(request.into_body()));
            let mut response = line(&name);
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
        "/count" => count(request.into_body()).await,
        "/reset" => {
            // Closed with nothing to linger for, the kernel sends RST.
            let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = setsockopt(&socket, Linger, &now);
            return Err(ResetMe);
        }
        other => {
            let status = other.strip_prefix("/status/").and_then(|code| code.parse::<u16>().ok());
            let mut response = line(&name);
            if let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) {
                *response.status_mut() = status;
            }
            response
        }
    };
    if let Ok(name) = name.parse() {
        response.headers_mut().insert("x-upstream", name);
    }
    Ok(response)
}

/// How `/health` asks for a drain: not, by its status, by a header.
static RETIRED: AtomicUsize = AtomicUsize::new(0);

fn health(name: &str) -> Answer {
    let mut response = line(name);
    match RETIRED.load(Ordering::Relaxed) {
        0 => {}
        1 => *response.status_mut() = StatusCode::NOT_FOUND,
        _ => drop(response.headers_mut().insert("x-drain", HeaderValue::from_static("yes"))),
    }
    response
}

fn line(name: &str) -> Answer {
    whole(format!("hello from {name}\n"))
}

fn whole(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).map_err(never).boxed())
}

fn headers(request: &Request<Incoming>) -> Answer {
    let mut fields = serde_json::Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let values = fields.entry(name.as_str()).or_insert_with(|| serde_json::Value::Array(Vec::new()));
        if let Some(values) = values.as_array_mut() {
            values.push(value.into());
        }
    }
    whole(serde_json::Value::Object(fields).to_string())
}

fn text(bytes: u64) -> Answer {
    let text = "all work and no play \n".repeat(usize::try_from(bytes / 22 + 1).unwrap_or_default());
    let text = text[..usize::try_from(bytes).unwrap_or_default()].to_owned();
    let mut response = whole(text);
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
    response.headers_mut().insert("etag", HeaderValue::from_static("\"strong\""));
    response
}

fn auth(request: &Request<Incoming>) -> Answer {
    let mut response = whole("");
    if let Some(uri) = request.headers().get("x-forwarded-uri") {
        response.headers_mut().insert("x-asked", uri.clone());
    }
    if request.headers().get("x-pass").is_some_and(|pass| pass == "yes") {
        response.headers_mut().insert("x-user", HeaderValue::from_static("alice"));
    } else {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert("location", HeaderValue::from_static("/login"));
    }
    response
}

fn hop(name: &str) -> Answer {
    let mut response = line(name);
    for (field, value) in [
        ("connection", "x-private"),
        ("x-private", "for the proxy alone"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-public", "for everybody"),
    ] {
        response.headers_mut().insert(field, HeaderValue::from_static(value));
    }
    response
}

async fn count(mut body: Incoming) -> Answer {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return Response::new(Empty::new().map_err(never).boxed()),
        }
    }
    whole(bytes.to_string())
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}
