//! One request of HTTP/3 and its answer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
};

use bytes::Bytes;
use h3::{
    error::{Code, StreamError},
    server::{RequestResolver, RequestStream},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::Body as _;
use tokio::time::timeout;

use super::{
    body::{Body, BodyFault},
    count,
    early::{self, Heard},
    quic::{self, Over, Ticket},
    resets::Resets,
};
use crate::{
    body::ResponseBody,
    connection::date,
    hygiene::{Fault, patience::Stall},
    request::{self as life, Caller},
};

type Answers = RequestStream<quic::SendStream, Bytes>;

/// Why an answer did not get to its end.
#[derive(Debug)]
enum Broke {
    /// The client left, or its connection did.
    Client,
    /// It takes nothing.
    StoodStill,
    /// What should be told is not there, or not in full.
    Server,
}

/// Serves a stream until its client has the answer or wants it no more.
pub async fn serve(
    caller: Rc<Caller>,
    request: RequestResolver<quic::Connection, Bytes>,
    ticket: Ticket,
    resets: Rc<Resets>,
) {
    let Ticket { meter, mut over } = ticket;
    let limits = &caller.entrypoint.limits;
    // 1. The head.
    let resolved = match timeout(limits.head_time, request.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            match error {
                _ if meter.too_long.get() => count(&caller, Fault::HeadTooLarge),
                StreamError::HeaderTooBig { .. } => count(&caller, Fault::HeadTooLarge),
                StreamError::StreamError { .. } => count(&caller, Fault::Malformed),
                StreamError::RemoteTerminate { .. } => resets.one_more(&caller),
                _ => {}
            }
            return tracing::debug!(%error, "a request was not understood");
        }
        Err(_) => return count(&caller, Fault::HeadTimeout),
    };
    meter.answering.set(true);
    let (request, stream) = resolved;
    let (mut answers, incoming) = stream.split();
    let (listener, heard) = early::heads();
    let body = Body::unread(incoming, meter, listener);

    // 2. The answer, for as long as the client waits for it.
    let answered = {
        let mut answering = pin!(answer(&caller, request, body, heard, &mut answers));
        tokio::select! {
            biased;
            answered = answering.as_mut() => answered,
            Over::Left = over.as_mut() => Err(Broke::Client),
        }
    };
    let delivered = match answered {
        // 3. A connection that ends takes along what was not acknowledged: so the stream is over when all of it was.
        Ok(()) => stall(&caller).watch(over).await.map(|_| ()).ok_or(Broke::StoodStill),
        Err(broke) => Err(broke),
    };
    match delivered {
        Ok(()) => {}
        Err(Broke::Client) => {
            answers.stop_stream(Code::H3_REQUEST_CANCELLED);
            resets.one_more(&caller);
        }
        Err(Broke::Server) => answers.stop_stream(Code::H3_INTERNAL_ERROR),
        Err(Broke::StoodStill) => {
            count(&caller, Fault::AnswerTimeout);
            answers.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

async fn answer(
    caller: &Rc<Caller>,
    request: Request<()>,
    mut body: Body,
    mut heard: Heard,
    answers: &mut Answers,
) -> Result<(), Broke> {
    let (mut head, ()) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    match judge(&head, caller.entrypoint.limits.fields) {
        Ok(length) => body.is_to_have(length),
        Err(fault) => {
            head.extensions.insert(fault);
        }
    }
    // Whoever waits for the word gets it; whoever asks something else is refused later.
    let waits = head.headers.get(header::EXPECT);
    if waits.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let mut go_on = Response::new(());
        *go_on.status_mut() = StatusCode::CONTINUE;
        sent(caller, answers.send_response(go_on)).await?;
    }
    let has_hardly_a_body =
        matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE);
    let begun = timeout(caller.entrypoint.limits.head_time, body.begin(has_hardly_a_body)).await;
    match begun {
        Ok(Ok(())) => {}
        Ok(Err(BodyFault::Length)) => {
            head.extensions.insert(Fault::ContentLength);
        }
        Ok(Err(BodyFault::Stream(_))) => return Err(Broke::Client),
        Err(_) => {
            head.extensions.insert(Fault::HeadTimeout);
        }
    }
    let response = {
        let mut answering = pin!(life::answer(caller.clone(), Request::from_parts(head, body)));
        loop {
            tokio::select! {
                biased;
                Ok(response) = answering.as_mut() => break response,
                Some(early) = heard.next() => sent_early(caller, early, answers).await?,
            }
        }
    };
    while let Some(early) = heard.waiting() {
        sent_early(caller, early, answers).await?;
    }
    let (head, mut body) = response.into_parts();
    let mut head = Response::from_parts(head, ());
    complete(&mut head, &body, is_head);
    let sent = send(caller, head, &mut body, answers).await;
    if matches!(sent, Err(Broke::StoodStill)) {
        caller.link.let_go(Fault::AnswerTimeout, || drop(body));
    }
    sent
}

/// Sends what comes before an answer, if it isn't longer than the client takes.
async fn sent_early(caller: &Caller, early: Response<()>, answers: &mut Answers) -> Result<(), Broke> {
    match sent(caller, answers.send_response(early)).await {
        Err(Broke::Server) => Ok(()),
        sent => sent,
    }
}

/// Sends an answer, as fast as the client takes it.
async fn send(
    caller: &Caller,
    head: Response<()>,
    body: &mut ResponseBody,
    answers: &mut Answers,
) -> Result<(), Broke> {
    sent(caller, answers.send_response(head)).await?;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        match frame.map_err(|_| Broke::Server)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => sent(caller, answers.send_data(data)).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    sent(caller, answers.send_trailers(trailers)).await?;
                }
                break;
            }
        }
    }
    sent(caller, answers.finish()).await
}

/// What HTTP/3 forbids, and what its library doesn't look at. Yields the length that the body is to have.
fn judge(head: &request::Parts, most_fields: usize) -> Result<Option<u64>, Fault> {
    if head.headers.len() > most_fields {
        return Err(Fault::TooManyFields);
    }
    let of_connections =
        ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"].into_iter();
    if of_connections.into_iter().any(|name| head.headers.contains_key(name)) {
        return Err(Fault::ConnectionField);
    }
    if head.headers.get_all(header::TE).iter().any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(Fault::ConnectionField);
    }
    length(&head.headers)
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (Some(length), None) = (lengths.next(), lengths.next()) else {
        let none = !headers.contains_key(header::CONTENT_LENGTH);
        return if none { Ok(None) } else { Err(Fault::ContentLength) };
    };
    let digits = length.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let length = length.to_str().ok().filter(|_| plain).and_then(|length| length.parse().ok());
    length.map(Some).ok_or(Fault::ContentLength)
}

/// What the libraries of the older versions add by themselves.
fn complete(head: &mut Response<()>, body: &ResponseBody, is_head: bool) {
    let status = head.status();
    let headers = head.headers_mut();
    let may_be_said = !is_head
        && !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if may_be_said
        && !headers.contains_key(header::CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date::now());
    }
}

fn stall(caller: &Caller) -> Stall {
    Stall::new(caller.worker.patience.clone(), caller.entrypoint.limits.body_idle)
}

/// Sends a piece of the answer, if the client takes it.
async fn sent(caller: &Caller, piece: impl Future<Output = Result<(), StreamError>>) -> Result<(), Broke> {
    stall(caller).watch(piece).await.ok_or(Broke::StoodStill)?.map_err(|error| match error {
        // Larger than the client takes: it would have to be told before.
        StreamError::HeaderTooBig { .. } => Broke::Server,
        _ => Broke::Client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::new(());
        for &(name, value) in fields {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn fields_of_connections_and_odd_lengths_are_refused() {
        for (fields, judged) in [
            (&[][..], Ok(None)),
            (&[("te", "trailers")], Ok(None)),
            (&[("content-length", "12")], Ok(Some(12))),
            (&[("connection", "close")], Err(Fault::ConnectionField)),
            (&[("transfer-encoding", "chunked")], Err(Fault::ConnectionField)),
            (&[("upgrade", "websocket")], Err(Fault::ConnectionField)),
            (&[("te", "gzip")], Err(Fault::ConnectionField)),
            (&[("content-length", "+1")], Err(Fault::ContentLength)),
            (&[("content-length", "")], Err(Fault::ContentLength)),
            (&[("content-length", "1"), ("content-length", "1")], Err(Fault::ContentLength)),
            (&[("content-length", "99999999999999999999")], Err(Fault::ContentLength)),
            (&[("a", "1"), ("b", "2"), ("c", "3")], Err(Fault::TooManyFields)),
        ] {
            assert_eq!(judge(&head(fields), 2), judged, "{fields:?}");
        }
    }
}
