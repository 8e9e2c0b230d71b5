//! A probe over HTTP: the answer's status, and its header and body where something is expected of them.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Target, broken, request};
use crate::{
    clock::Moment,
    config::model::{BodyMatch, DrainOn, HttpCheck},
    health::{Health, tracker::ProbeFault},
    journal::{Kind, Note},
    worker::LocalExecutor,
};

/// So much of a body is looked at.
const MOST_BODY: usize = 64 * 1024;

pub async fn ask<S>(
    stream: S,
    target: &Target,
    check: &HttpCheck,
    health: &Health,
    http2: bool,
) -> Result<(), ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let request = request(target, &check.method, check.path.as_str(), http2, Bytes::new())?;
    exchange(stream, request, http2, async |answer| {
        health.heard(Moment::now());
        let asks = asks_to_drain(&check.drain, answer.status(), answer.headers());
        let drains = asks.is_some();
        let expected = check.status.iter().any(|range| range.contains(&answer.status().as_u16()));
        // An error says nothing of it, and leaves it as it is.
        if drains || expected {
            tell_of_drain(target, health, asks);
        }
        if drains { Ok(()) } else { judge(answer, check).await }
    })
    .await
}

/// Sends one request over `stream`, and has its answer judged.
pub async fn exchange<S, T>(
    stream: S,
    request: http::Request<Full<Bytes>>,
    http2: bool,
    judge: impl AsyncFnOnce(Response<Incoming>) -> Result<T, ProbeFault>,
) -> Result<T, ProbeFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    // The connection is driven here, and ends with the probe. When it ends by itself, the answer is there or never
    // will be.
    if http2 {
        let (mut sender, connection) = http2::handshake(LocalExecutor, stream).await.map_err(broken)?;
        let mut judged = pin!(async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            judge(answer).await
        });
        tokio::select! {
            biased;
            judged = &mut judged => judged,
            _ = connection => judged.await,
        }
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        let mut judged = pin!(async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            judge(answer).await
        });
        tokio::select! {
            biased;
            judged = &mut judged => judged,
            _ = connection => judged.await,
        }
    }
}

/// With which words an answer asks that its server be drained.
fn asks_to_drain(drain: &DrainOn, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if drain.statuses.contains(&status) {
        return Some(format!("the probe was answered with status {}", status.as_u16()));
    }
    let header = drain.header.as_ref().filter(|header| headers.contains_key(*header))?;
    Some(format!("the probe's answer has the header `{header}`"))
}

/// A drain that is asked for begins and ends with the answers.
fn tell_of_drain(target: &Target, health: &Health, asks: Option<String>) {
    let server = target.addr;
    match (asks.clone(), health.asked_to_drain(asks)) {
        (Some(why), true) => {
            tracing::info!(%server, why, "server asks to be drained: it gets no new work");
            let message = format!("server {server} asks to be drained: it gets no new work");
            Note::new(Kind::ServerDrained, message).server(server).why(why).write();
        }
        (None, true) => {
            tracing::info!(%server, "server does not ask to be drained any more");
            let message = format!("server {server} does not ask to be drained any more");
            Note::new(Kind::ServerUndrained, message).server(server).write();
        }
        (_, false) => {}
    }
}

async fn judge(answer: Response<Incoming>, check: &HttpCheck) -> Result<(), ProbeFault> {
    let status = answer.status().as_u16();
    if !check.status.iter().any(|range| range.contains(&status)) {
        return Err(ProbeFault::Status(status));
    }
    for (name, value) in &check.headers {
        let mut values = answer.headers().get_all(name).iter();
        let (there, wanted) = match value {
            Some(value) => (values.any(|found| found == value), format!("{name}: {value:?}")),
            None => (values.next().is_some(), name.to_string()),
        };
        if !there {
            return Err(ProbeFault::Unexpected(format!("the answer has no field `{wanted}`")));
        }
    }
    match &check.body {
        None => Ok(()),
        Some(wanted) => body(answer.into_body(), wanted).await,
    }
}

/// Reads until the text has come, the body ends, or as much was read as is looked at.
async fn body(mut body: Incoming, wanted: &BodyMatch) -> Result<(), ProbeFault> {
    let mut read = Vec::new();
    while read.len() < MOST_BODY {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let room = MOST_BODY - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        // A text that is there won't go again. An expression may be about the end, so it is asked there.
        if let BodyMatch::Contains(text) = wanted
            && holds(&read, text)
        {
            return Ok(());
        }
    }
    let found = match wanted {
        BodyMatch::Contains(text) => holds(&read, text),
        BodyMatch::Regex(regex) => regex.is_match(&read),
    };
    if found {
        return Ok(());
    }
    Err(ProbeFault::Unexpected(format!(
        "the answer's body ({} bytes of it) isn't what is expected",
        read.len()
    )))
}

fn holds(read: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(read, text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_asks_for_a_drain_by_its_status_or_by_a_header() {
        let drain =
            DrainOn { statuses: vec![StatusCode::NOT_FOUND], header: Some("x-drain".parse().unwrap()) };
        let with = HeaderMap::from_iter([("x-drain".parse().unwrap(), http::HeaderValue::from_static(""))]);
        let without = HeaderMap::new();
        for (drain, status, headers, asks) in [
            (&drain, 200, &without, false),
            (&drain, 404, &without, true),
            (&drain, 503, &without, false),
            (&drain, 200, &with, true),
            (&drain, 503, &with, true),
            (&DrainOn::default(), 404, &with, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(asks_to_drain(drain, status, headers).is_some(), asks, "{status} {headers:?}");
        }
    }
}
