//! Has a request answered by a service: picks a server, tries, and tries another where that is safe.
//!
//! Safe is what was never sent, and what may be repeated without harm: an idempotent request (RFC 9110 §9.2.2), or one that
//! the service says so of, whose body was kept. Anything else is never sent twice.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{header, request};
use tokio::time::{sleep, timeout};

use crate::{
    access_log::{
        Exchange,
        attempts::{Attempted, Outcome},
        ending::Timings,
    },
    balance::Tried,
    body::RequestBody,
    clock::Moment,
    config::model::ServerProtocol,
    health::Status,
    service::{Picked, Server, Service, balancer::Wanted},
    trace::span::Attempt,
    upstream::{
        attempt::{Answer, AttemptFault, Connections, Failed, Means, Terms, attempt},
        budget::Retrying,
        outcome::{Broken, Watch},
        parcel::Parcel,
    },
};

/// How long the verdict on a server that broke a connection may take. Two refused probes take a few ms.
const VERDICT: Duration = Duration::from_millis(100);

/// The longest wait before a repetition, however many there were.
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Of an answer that nobody wants so many pieces are read, if they are there already, so that its connection can be used again.
const SKIPPED: usize = 8;

/// Why no server answered.
#[derive(Debug, thiserror::Error)]
pub enum Undelivered {
    #[error("no server is up")]
    NoServer,
    #[error("its service's breaker is open")]
    BreakerOpen,
    #[error("the last server that could be asked failed: {0}")]
    Failed(AttemptFault),
    #[error("the server can't switch to what the client asks for")]
    NoTunnel,
    #[error("its route gives it no more time")]
    TooLate,
    #[error("the client left before its request was whole")]
    ClientLeft,
}

impl Undelivered {
    /// In a word, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::BreakerOpen => "breaker_open",
            Self::Failed(fault) => fault.name(),
            Self::NoTunnel => "no_tunnel",
            Self::TooLate => "too_late",
            Self::ClientLeft => "client_left",
        }
    }
}

/// How far a request has come.
pub(super) struct Delivery<'a> {
    pub(super) means: Means<'a>,
    pub(super) service: &'a Service,
    pub(super) head: &'a request::Parts,
    pub(super) parcel: Parcel,
    exchange: &'a mut Exchange,
    /// Whether it does no harm if two servers get it.
    repeatable: bool,
    began: Instant,
    /// What its attempts say of servers and service.
    watch: Watch<'a>,
    pub(super) tried: Tried,
    /// Which server it would like.
    pub(super) wanted: Wanted,
    asked: usize,
    /// Servers that may have seen it.
    pub(super) sent: u32,
    repetitions: u32,
    permits: Vec<Retrying<'a>>,
    connections: Connections,
}

/// Delivers a request, and notes in `exchange` which servers were asked. One that could not be delivered, but may safely be
/// sent elsewhere, leaves its body in `unspent`.
pub async fn deliver_or_return(
    means: Means<'_>,
    service: &Service,
    head: &request::Parts,
    body: RequestBody,
    unspent: &mut Option<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Answer, Undelivered> {
    let _active = service.budget.enter();
    service.counters.requests.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let watch = match Watch::begin(service, began) {
        Ok(watch) => watch,
        Err(Broken) => {
            exchange.flags.breaker = true;
            *unspent = Some(body);
            return Err(Undelivered::BreakerOpen);
        }
    };
    let repeatable = service.retry.may_repeat(&head.method);
    // Over HTTP/2 a server may say that it did nothing of a request: then any may be sent again.
    let may_be_refused = match service.protocol {
        ServerProtocol::Http1 => false,
        ServerProtocol::Http2 => true,
        ServerProtocol::Auto => service.tls.is_some(),
    };
    let most = (repeatable || may_be_refused).then_some(service.retry.buffer);
    let mut delivery = Delivery {
        means,
        service,
        head,
        parcel: Parcel::new(body, most, means.kept),
        exchange,
        repeatable,
        began,
        watch,
        tried: Tried::default(),
        wanted: service.wanted(head, means.ends.source.ip()),
        asked: 0,
        sent: 0,
        repetitions: 0,
        permits: Vec::new(),
        connections: Connections::PooledOrNew,
    };
    delivery.run(unspent).await
}

impl<'a> Delivery<'a> {
    async fn run(&mut self, unspent: &mut Option<RequestBody>) -> Result<Answer, Undelivered> {
        let mut fault = None;
        let mut elsewhere = true;
        // What a server answered that another may better.
        let mut held: Option<(Picked<'a>, Answer)> = None;
        while self.asked <= self.service.servers.len()
            && let Some(picked) = self.service.pick(self.tried, self.wanted)
            && let Some(body) = self.parcel.body()
        {
            let since = if self.asked == 0 { self.began } else { Instant::now() };
            self.exchange.timings = Timings { asked: Some(since), ..Timings::default() };
            let (picked, answered) = self.ask(picked, body).await;
            self.end_span(picked, &answered);
            self.watch.saw(picked, &answered);
            match answered {
                Ok(answer) => {
                    let could_be_better = self.service.retry.is_bettered(answer.head.status);
                    if could_be_better && answer.head.status.is_server_error() {
                        picked.server.doubt(Moment::of(answer.at));
                    }
                    if !could_be_better
                        || !self.has_one_more()
                        || !self.service.has_other(self.tried)
                        || !self.is_permitted(picked.server).await
                    {
                        self.answered(picked, since, &answer);
                        return Ok(answer);
                    }
                    self.note(picked, since, Outcome::Answered(answer.head.status));
                    if let Some((_, worse)) = held.replace((picked, answer)) {
                        set_aside(worse);
                    }
                    self.back_off().await;
                }
                Err(Failed { fault: AttemptFault::ClientBroke(_), .. }) => {
                    return Err(Undelivered::ClientLeft);
                }
                Err(Failed { fault: fault @ AttemptFault::NoTunnel, .. }) => {
                    // It is for the operator to change, and once is enough to hear of it.
                    if !self.service.counters.no_tunnel.swap(true, Ordering::Relaxed) {
                        let (service, server) = (&self.service.name, &picked.server.addr);
                        tracing::warn!(%service, %server, "a WebSocket was refused with 502: {fault}; `protocol = \"http1\"` may help");
                    }
                    return Err(Undelivered::NoTunnel);
                }
                Err(failed) => {
                    self.note(picked, since, Outcome::Failed(failed.fault.name()));
                    let again = self.goes_on(picked, &failed).await;
                    if let Some(unsent) = failed.unsent {
                        self.parcel.give_back(unsent);
                    }
                    fault = Some(failed.fault);
                    if !again {
                        elsewhere = false;
                        break;
                    }
                }
            }
        }
        // Better than none.
        if let Some((picked, answer)) = held {
            self.exchange.server = Some(picked.server.label.clone());
            self.exchange.server_took = Some(answer.at.duration_since(self.began));
            self.exchange.timings.answered = Some(answer.at);
            return Ok(answer);
        }
        *unspent = if elsewhere { self.parcel.body() } else { None };
        Err(fault.map_or(Undelivered::NoServer, Undelivered::Failed))
    }

    /// Has one server asked, or two of which one answers.
    async fn ask(&mut self, picked: Picked<'a>, body: RequestBody) -> (Picked<'a>, Result<Answer, Failed>) {
        if self.asked > 0 {
            self.service.counters.retries.fetch_add(1, Ordering::Relaxed);
            self.exchange.flags.retries = self.exchange.flags.retries.saturating_add(1);
        }
        self.asked += 1;
        self.sent += 1;
        self.tried.insert(picked.index);
        let server = picked.server;
        server.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.exchange.server = Some(server.label.clone());
        let again = self.begin_span(picked);
        let head = again.as_deref().unwrap_or(self.head);
        match &self.service.hedging {
            // What becomes a connection of its own is opened once.
            Some(hedging) if self.repeatable && !self.head.headers.contains_key(header::UPGRADE) => {
                Box::pin(self.race(hedging, picked, head, body)).await
            }
            _ => {
                let terms = self.terms();
                (picked, attempt(self.means, self.service, picked, terms, head, body).await)
            }
        }
    }

    /// Whether another attempt follows one that failed.
    async fn goes_on(&mut self, picked: Picked<'a>, failed: &Failed) -> bool {
        let server = picked.server;
        // What the server has not looked at is not repeated by being sent again.
        let can_be_repeated = (self.repeatable || failed.refused) && self.parcel.can_be_sent_again();
        if failed.stale && can_be_repeated {
            // That says nothing of the server: it may have the request again, but not over a connection as old.
            self.connections = Connections::New;
            self.tried.remove(picked.index);
            self.asked -= 1;
            self.sent -= 1;
            return true;
        }
        server.counters.failures.fetch_add(1, Ordering::Relaxed);
        let (service, addr) = (&self.service.name, server.addr);
        tracing::debug!(%service, server = %addr, fault = %failed.fault, "attempt failed");
        // What cost no server any work is no repetition but the first delivery.
        if failed.unsent.is_some() || failed.refused {
            self.sent -= 1;
            return (failed.unsent.is_some() || can_be_repeated) && self.has_time();
        }
        if !can_be_repeated || !self.has_one_more() || !self.is_permitted(server).await {
            return false;
        }
        if server.health.status() != Status::Down {
            self.back_off().await;
        }
        true
    }

    pub(super) fn terms(&self) -> Terms {
        let may_leave = self.has_one_more() && self.parcel.can_surely_be_sent_again();
        let beside = may_leave.then_some(self.tried);
        Terms { connections: self.connections, beside }
    }

    fn has_time(&self) -> bool {
        self.began.elapsed() < self.service.retry.within
    }

    fn has_one_more(&self) -> bool {
        self.repeatable
            && self.sent < self.service.retry.attempts
            && self.parcel.can_be_sent_again()
            && self.has_time()
    }

    /// Whether a repetition is within the budget. What is taken away from a server that is out is delivered for the first
    /// time, and not rationed.
    async fn is_permitted(&mut self, server: &Server) -> bool {
        if server.health.status() == Status::Down {
            return true;
        }
        match self.service.budget.retry(self.service.retry.budget) {
            Some(permit) => self.permits.push(permit),
            None => return is_taken_out(server).await,
        }
        true
    }

    /// The first repetition comes at once, since it goes elsewhere; later ones wait a random time each, or all who were
    /// turned away together would come again together.
    async fn back_off(&mut self) {
        self.repetitions += 1;
        let longest = longest_backoff(self.service.retry.backoff, self.repetitions);
        if !longest.is_zero() {
            Box::pin(sleep(longest.mul_f64(fastrand::f64()))).await;
        }
    }

    /// An attempt begins, and with it a span where the request is traced. Then another one than the first has a head of its
    /// own, that names its span; boxed, since that is rare.
    pub(super) fn begin_span(&mut self, picked: Picked<'_>) -> Option<Box<request::Parts>> {
        let trace = self.exchange.trace.as_mut().filter(|trace| trace.is_sampled())?;
        trace.begin_attempt(Attempt {
            begun: Instant::now(),
            ended: None,
            connect: None,
            outcome: None,
            server: picked.server.addr,
            service: self.service.name.clone(),
            encrypted: self.service.tls.is_some(),
            method: self.head.method.clone(),
            host: self.head.headers.get(header::HOST).cloned(),
            target: self.head.uri.path_and_query().cloned(),
            resends: u32::try_from(self.asked.saturating_sub(1)).unwrap_or(u32::MAX),
        });
        trace.is_told_anew().then(|| {
            let mut head = Box::new(self.head.clone());
            trace.tell(&mut head.headers);
            head
        })
    }

    /// And ends.
    fn end_span(&mut self, picked: Picked<'_>, answered: &Result<Answer, Failed>) {
        let Some(trace) = self.exchange.trace.as_mut().filter(|trace| trace.is_sampled()) else { return };
        match answered {
            Ok(answer) => {
                let outcome = Outcome::Answered(answer.head.status);
                trace.end_attempt(picked.server.addr, answer.at, answer.connect, outcome);
            }
            Err(failed) => {
                let outcome = Outcome::Failed(failed.fault.name());
                trace.end_attempt(picked.server.addr, Instant::now(), None, outcome);
            }
        }
    }

    /// An attempt that brought no answer for the client.
    pub(super) fn note(&mut self, picked: Picked<'_>, since: Instant, outcome: Outcome) {
        let (server, took) = (picked.server.label.clone(), since.elapsed());
        self.exchange.attempts.push(Attempted { server, outcome, took });
    }

    /// The answer that the client gets. That a single attempt brought it goes without saying.
    fn answered(&mut self, picked: Picked<'_>, since: Instant, answer: &Answer) {
        let exchange = &mut *self.exchange;
        exchange.server_took = Some(answer.at.duration_since(self.began));
        exchange.timings.connect = answer.connect;
        exchange.timings.answered = Some(answer.at);
        if !exchange.attempts.is_empty() {
            let server = picked.server.label.clone();
            let took = answer.at.duration_since(since);
            exchange.attempts.push(Attempted {
                server: server.clone(),
                outcome: Outcome::Answered(answer.head.status),
                took,
            });
            exchange.server = Some(server);
        }
        let trace = exchange.trace.as_ref().and_then(|trace| trace.sampled_id());
        self.service.counters.answered(answer.at.duration_since(self.began), answer.head.status, trace);
    }
}

/// None before the first repetition, then doubled with each.
fn longest_backoff(first: Duration, repetition: u32) -> Duration {
    let Some(doublings) = repetition.checked_sub(2) else { return Duration::ZERO };
    first.saturating_mul(1 << doublings.min(16)).min(LONGEST_BACKOFF.max(first))
}

/// An answer that nobody wants: its connection is kept if that costs no wait.
pub(super) fn set_aside(mut answer: Answer) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..SKIPPED {
        let frame = answer.lease.carrier.poll_frame(&mut cx);
        if answer.lease.carrier.is_at_end() {
            answer.lease.give_back();
            return;
        }
        if !matches!(frame, Poll::Ready(Some(Ok(_)))) {
            return;
        }
    }
}

/// Whether a server that broke a connection is being taken out: its watcher looks at once. Then many requests broke
/// because it died, and moving them is no storm of repetitions.
async fn is_taken_out(server: &Server) -> bool {
    // Nobody looks after a server without a health check: it is never taken out.
    let verdict = server.health.until(|status| status != Status::Up);
    timeout(VERDICT, verdict).await.is_ok_and(|status| status == Status::Down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repetition_comes_at_once_and_later_ones_wait_longer_and_longer() {
        let first = Duration::from_millis(25);
        let waits: Vec<_> =
            (1..=9).map(|repetition| longest_backoff(first, repetition).as_millis()).collect();
        assert_eq!(waits, [0, 25, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(longest_backoff(Duration::ZERO, 9), Duration::ZERO);
    }
}
