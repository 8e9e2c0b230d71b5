//! Has a request answered by a service: picks a server, tries, and tries another where that is safe.
//!
//! Safe is what was never sent, and what may be repeated without harm: an idempotent request (RFC 9110 §9.2.2)
//! without a body. Anything else is never sent twice.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::{Method, request};
use tokio::time::timeout;

use crate::{
    access_log::Exchange,
    balance::Tried,
    body::RequestBody,
    health::Status,
    service::{Server, Service},
    upstream::attempt::{Answer, AttemptFault, Connections, Failed, Means, attempt},
};

/// How long the verdict on a server that broke a connection may take. Two refused probes take a few ms.
const VERDICT: Duration = Duration::from_millis(100);

/// Why no server answered.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("no server is up")]
    NoServer,
    #[error("the last server that could be asked failed: {0}")]
    Failed(AttemptFault),
    #[error("the server can't switch to what the client asks for")]
    NoTunnel,
    #[error("its route gives it no more time")]
    TooLate,
    #[error("the client left before its request was whole")]
    ClientLeft,
}

/// Delivers a request, and notes in `exchange` which server was asked and how often. One that could not be delivered, but may
/// safely be sent elsewhere, leaves its body in `unspent`.
pub async fn deliver_or_return(
    means: Means<'_>,
    service: &Service,
    head: &request::Parts,
    mut body: RequestBody,
    unspent: &mut Option<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Answer, Undelivered> {
    let _active = service.budget.enter();
    service.counters.requests.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut tried = Tried::default();
    let wanted = service.wanted(head, means.ends.source.ip());
    let mut fault = None;
    let mut connections = Connections::PooledOrNew;
    let mut permits = Vec::new();
    loop {
        let Some(picked) = service.pick(tried, wanted) else {
            *unspent = Some(body);
            return Err(fault.map_or(Undelivered::NoServer, Undelivered::Failed));
        };
        if fault.is_some() {
            service.counters.retries.fetch_add(1, Ordering::Relaxed);
            exchange.flags.retries = exchange.flags.retries.saturating_add(1);
        }
        tried.insert(picked.index);
        let server = picked.server;
        server.counters.requests.fetch_add(1, Ordering::Relaxed);
        exchange.server = Some(server.label.clone());

        let spare = body.is_empty().then_some(RequestBody::Empty);
        let failed = match attempt(means, service, picked, connections, head, body).await {
            Ok(answer) => {
                exchange.server_took = Some(answer.at.duration_since(began));
                return Ok(answer);
            }
            Err(Failed { fault: AttemptFault::ClientBroke(_), .. }) => return Err(Undelivered::ClientLeft),
            Err(Failed { fault: fault @ AttemptFault::NoTunnel, .. }) => {
                // It is for the operator to change, and once is enough to hear of it.
                if !service.counters.no_tunnel.swap(true, Ordering::Relaxed) {
                    let (service, server) = (&service.name, &server.addr);
                    tracing::warn!(%service, %server, "a WebSocket was refused with 502: {fault}; `protocol = \"http1\"` may help");
                }
                return Err(Undelivered::NoTunnel);
            }
            Err(failed) => failed,
        };

        // What the server has not looked at is not repeated by being sent again.
        let spare = spare.filter(|_| failed.refused || is_idempotent(&head.method));
        if failed.stale
            && let Some(spare) = spare
        {
            // That says nothing of the server: it may have the request again, but not over a connection as old.
            connections = Connections::New;
            tried.remove(picked.index);
            fault = Some(failed.fault);
            body = spare;
            continue;
        }
        server.counters.failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(service = %service.name, server = %server.addr, fault = %failed.fault, "attempt failed");
        // What cost no server any work, or is taken away from a server that is out, is no repetition but the first
        // delivery: only the rest is rationed.
        let rationed = failed.unsent.is_none() && !failed.refused && server.health.status().usable();
        let Some(again) = failed.unsent.or(spare) else {
            return Err(Undelivered::Failed(failed.fault));
        };
        if rationed {
            match service.budget.retry() {
                Some(permit) => permits.push(permit),
                None if is_taken_out(server).await => {}
                None => return Err(Undelivered::Failed(failed.fault)),
            }
        }
        fault = Some(failed.fault);
        body = again;
    }
}

/// Whether a server that broke a connection is being taken out: its watcher looks at once. Then many requests broke
/// because it died, and moving them is no storm of repetitions.
async fn is_taken_out(server: &Server) -> bool {
    // Nobody looks after a server without a health check: it is never taken out.
    let verdict = server.health.until(|status| status != Status::Up);
    timeout(VERDICT, verdict).await.is_ok_and(|status| status == Status::Down)
}

/// Whether sending a request twice does no harm.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idempotent_requests_are_repeated() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(is_idempotent(&method), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"LOCK").unwrap()] {
            assert!(!is_idempotent(&method), "{method}");
        }
    }
}
