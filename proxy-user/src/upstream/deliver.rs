//! Has a request answered by a service: picks a server, tries, and tries another where that is safe.
//!
//! Safe is what was never sent, and what may be repeated without harm: an idempotent request (RFC 9110 §9.2.2)
//! without a body. Anything else is never sent twice.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::{Method, Request};
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
    #[error("its route gives it no more time")]
    TooLate,
    #[error("the client left before its request was whole")]
    ClientLeft,
}

/// Delivers `request`, and notes in `exchange` which server was asked and how often.
pub async fn deliver(
    means: Means<'_>,
    service: &Service,
    mut request: Request<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Answer, Undelivered> {
    let _active = service.budget.enter();
    service.counters.requests.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut tried = Tried::default();
    let mut fault = None;
    let mut connections = Connections::PooledOrNew;
    let mut permits = Vec::new();
    loop {
        let Some(picked) = service.pick(tried) else {
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

        let spare = repeatable(&request);
        let failed = match attempt(means, service, picked, connections, request).await {
            Ok(answer) => {
                exchange.server_took = Some(began.elapsed());
                return Ok(answer);
            }
            Err(Failed { fault: AttemptFault::ClientBroke(_), .. }) => return Err(Undelivered::ClientLeft),
            Err(failed) => failed,
        };

        if failed.stale
            && let Some(spare) = spare
        {
            // That says nothing of the server: it may have the request again, but not over a connection as old.
            connections = Connections::New;
            tried.remove(picked.index);
            fault = Some(failed.fault);
            request = spare;
            continue;
        }
        server.counters.failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(service = %service.name, server = %server.addr, fault = %failed.fault, "attempt failed");
        // What cost no server any work, or is taken away from a server that is out, is no repetition but the first
        // delivery: only the rest is rationed.
        let rationed = failed.unsent.is_none() && server.health.status().usable();
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
        request = again;
    }
}

/// Whether a server that broke a connection is being taken out: its watcher looks at once. Then many requests broke
/// because it died, and moving them is no storm of repetitions.
async fn is_taken_out(server: &Server) -> bool {
    // Nobody looks after a server without a health check: it is never taken out.
    let verdict = server.health.until(|status| status != Status::Up);
    timeout(VERDICT, verdict).await.is_ok_and(|status| status == Status::Down)
}

/// A copy to send again, where sending twice does no harm.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(method: Method) -> bool {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = method;
        repeatable(&request).is_some()
    }

    #[test]
    fn only_idempotent_requests_are_repeated() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert!(copied(method.clone()), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"LOCK").unwrap()] {
            assert!(!copied(method.clone()), "{method}");
        }
    }
}
