//! A connection that speaks HTTP/1.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{gathered::Gathered, until_it_ends};
use crate::{
    hygiene::stream::Guarded,
    request::{self, Caller},
};

/// Serves requests, one after the other, until the connection ends or switches.
pub async fn speak<S>(stream: S, caller: Rc<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guarded = Guarded::new(Gathered(stream), caller.link.clone(), &caller.entrypoint.limits);
    let asked = caller.clone();
    let service = service_fn(move |request| {
        let caller = asked.clone();
        async move {
            let mut answer = request::answer(caller.clone(), request).await;
            let switches = |answer: &http::Response<_>| answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            let is_last = answer.as_ref().is_ok_and(switches);
            caller.link.answered(is_last);
            if let Ok(answer) = &mut answer
                && !is_last
                && caller.worker.host_drains()
            {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        // A client may end its side behind its request, and still wants the answer.
        .half_close(true)
        // The stream has looked at all of this already, with limits of its own.
        .max_headers(caller.entrypoint.limits.fields + 1)
        .max_buf_size(caller.entrypoint.limits.head.max(LEAST_BUFFER) + LEAST_BUFFER)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(guarded), service)
        .with_upgrades();
    let ended =
        until_it_ends(connection, http1::UpgradeableConnection::graceful_shutdown, &caller.worker).await;
    if let Some(fault) = caller.link.untold() {
        caller.entrypoint.counters.faults.count(fault);
    }
    if let Err(error) = ended {
        // What the stream lets through is well-formed. Should hyper think otherwise, it has answered, and it shows here.
        if error.is_parse() && caller.link.fault().is_none() {
            caller.entrypoint.counters.faults.count(crate::hygiene::Fault::Malformed);
        }
        // Clients leave in many ways, and none of them is our trouble.
        tracing::debug!(%error, "connection ended");
    }
}

/// hyper's least buffer; it reads by as much.
const LEAST_BUFFER: usize = 64 * 1024;
