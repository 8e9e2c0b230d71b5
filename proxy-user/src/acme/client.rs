//! HTTP to the ACME authority: one connection for each request, over TLS, bounded in time and size.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::time::timeout;

use crate::{
    config::model::{ServerProtocol, ServiceTls},
    fetch,
    tls::{certificates::ServerAuthorities, server::ServerTls},
};

/// An answer is a few kilobytes long.
const LARGEST: usize = 1 << 20;

/// For one request, all in all.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Client {
    pub authorities: ServerAuthorities,
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let authorities = self.authorities.clone();
        Box::pin(async move {
            let url = request.uri().clone();
            let answer = timeout(PATIENCE, ask(request, authorities)).await;
            let answer = answer.unwrap_or_else(|_| Err("it doesn't answer".into()));
            answer.map(BytesResponse::from).map_err(|fault| Error::Other(format!("{url}: {fault}").into()))
        })
    }
}

async fn ask(
    request: Request<BodyWrapper<Bytes>>,
    authorities: ServerAuthorities,
) -> Result<Response<Full<Bytes>>, Fault> {
    let (mut head, body) = request.into_parts();
    let url = std::mem::take(&mut head.uri);
    if url.scheme_str() != Some("https") {
        return Err("it is not an https:// URL".into());
    }
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = fetch::connect(host, url.port_u16().unwrap_or(443)).await?;
    let server_name = ServerName::try_from(host.to_owned())?;
    let tls = ServerTls::new(&ServiceTls { server_name, authorities, certificate: None })?;
    let stream = tls.connect(stream, ServerProtocol::Http1).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;

    head.uri = Uri::from(url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    let authority = url.authority().map_or("", http::uri::Authority::as_str);
    head.headers.insert(header::HOST, HeaderValue::from_str(authority)?);
    let body = Full::new(body.collect().await?.to_bytes());
    let exchange = async {
        let (head, body) = sender.send_request(Request::from_parts(head, body)).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    };
    tokio::pin!(exchange);
    // The connection is driven here, and ends with the exchange.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}
