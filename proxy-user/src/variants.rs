//! Services that are made of services: a request finds its way through splits, failovers and mirrors to a service that has
//! servers, and the answer finds its way back.
//!
//! What a service is made of is a tree without circles ([`running`] builds it, the configuration rules out the rest), shared
//! by all workers. [`deliver`] takes a request through it. Only what can be repeated safely goes on from a service that
//! could not deliver it to another one: `upstream::deliver` hands such a request back whole.

pub mod by_client;
pub mod figures;
pub mod judge;
pub mod memory;
pub mod mirror;
pub mod running;
pub mod split;
pub mod statistics;
pub mod sticky;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::request;
use tokio::time::timeout_at;

use crate::{
    access_log::Exchange,
    body::RequestBody,
    clock::Moment,
    service::Service,
    upstream::{
        attempt::{Answer, Means},
        deliver::{Undelivered, deliver_or_return},
    },
    variants::{
        figures::{Failure, Figures},
        mirror::Mirror,
        split::Split,
    },
};

/// What stands in the place of a service's servers.
#[derive(Debug)]
pub enum MadeOf {
    Split(Split),
    /// In the order in which they are asked.
    Failover(Box<[Arc<Service>]>),
    Mirror(Mirror),
}

/// A request on its way through services.
#[derive(Clone, Copy)]
struct Asking<'r> {
    means: Means<'r>,
    head: &'r request::Parts,
    /// Whoever has not answered by then has failed.
    by: Option<Instant>,
}

type Delivery<'x> = Pin<Box<dyn Future<Output = Result<Answer, Undelivered>> + 'x>>;

/// Delivers a request, by `by` where there is such a limit. In `asked` stands the service that the request is for, and
/// afterwards the one with servers that was asked last: whose page is to be shown.
pub async fn deliver<'s>(
    means: Means<'_>,
    by: Option<Instant>,
    asked: &mut &'s Arc<Service>,
    head: &request::Parts,
    body: RequestBody,
    exchange: &mut Exchange,
) -> Result<Answer, Undelivered> {
    let service: &'s Arc<Service> = asked;
    if service.made_of.is_none() && by.is_none() {
        return deliver_or_return(means, service, head, body, &mut None, exchange).await;
    }
    // Boxed, since it is large and most requests go straight to a service's servers.
    let (asking, mut unspent) = (Asking { means, head, by }, None);
    let delivery = through(asking, service, asked, body, &mut unspent, exchange);
    match by {
        None => delivery.await,
        Some(by) => timeout_at(by.into(), delivery).await.unwrap_or(Err(Undelivered::TooLate)),
    }
}

/// Into one service of the tree. A body that may be sent elsewhere after a failure is left in `unspent`.
fn through<'x, 's: 'x, 'r: 'x>(
    asking: Asking<'r>,
    service: &'s Arc<Service>,
    asked: &'x mut &'s Arc<Service>,
    body: RequestBody,
    unspent: &'x mut Option<RequestBody>,
    exchange: &'x mut Exchange,
) -> Delivery<'x> {
    match &service.made_of {
        None => {
            if !Arc::ptr_eq(asked, service) {
                exchange.variant = Some(service.name.clone());
            }
            *asked = service;
            Box::pin(deliver_or_return(asking.means, service, asking.head, body, unspent, exchange))
        }
        Some(MadeOf::Split(split)) => Box::pin(split.deliver(asking, asked, body, unspent, exchange)),
        Some(MadeOf::Failover(parts)) => Box::pin(failover(asking, parts, asked, body, unspent, exchange)),
        Some(MadeOf::Mirror(mirror)) => Box::pin(mirror.deliver(asking, asked, body, unspent, exchange)),
    }
}

/// The first whose servers can answer, and then the others, as long as the request may be repeated.
async fn failover<'s>(
    asking: Asking<'_>,
    parts: &'s [Arc<Service>],
    asked: &mut &'s Arc<Service>,
    mut body: RequestBody,
    unspent: &mut Option<RequestBody>,
    exchange: &mut Exchange,
) -> Result<Answer, Undelivered> {
    let mut fault = None;
    for part in parts.iter().filter(|part| part.can_answer()) {
        match through(asking, part, asked, body, unspent, exchange).await {
            Err(met) => match unspent.take() {
                Some(back) => (body, fault) = (back, Some(met)),
                None => return Err(met),
            },
            answered => return answered,
        }
    }
    match (fault, parts.last()) {
        // Nobody is well: what the last one does then is what is done.
        (None, Some(last)) => through(asking, last, asked, body, unspent, exchange).await,
        (fault, _) => {
            *unspent = Some(body);
            Err(fault.unwrap_or(Undelivered::NoServer))
        }
    }
}

impl Service {
    /// Whether it makes sense to ask it: one of its servers, or of its parts', may get work.
    pub fn can_answer(&self) -> bool {
        match &self.made_of {
            None => {
                let open = self.breaker.as_ref().is_some_and(|breaker| breaker.is_open(Moment::recent()));
                !open && self.servers.iter().any(|server| server.health.takes_work())
            }
            Some(MadeOf::Split(split)) => split.can_answer(),
            Some(MadeOf::Failover(parts)) => parts.iter().any(|part| part.can_answer()),
            Some(MadeOf::Mirror(mirror)) => mirror.service.can_answer(),
        }
    }
}

/// Counts how a delivery ends; also one that is given up because its time is over, when its future is dropped.
struct Counting<'f> {
    figures: &'f Figures,
    began: Instant,
    by: Option<Instant>,
    over: bool,
}

impl<'f> Counting<'f> {
    fn begin(figures: &'f Figures, by: Option<Instant>) -> Self {
        Self { figures, began: Instant::now(), by, over: false }
    }

    fn end(mut self, outcome: &Result<Answer, Undelivered>) {
        self.over = true;
        match outcome {
            Ok(answer) if answer.head.status.is_server_error() => self.figures.failed(Failure::Status),
            Ok(answer) => self.figures.answered(answer.at.duration_since(self.began)),
            // Nobody's fault but the client's.
            Err(Undelivered::ClientLeft) => {}
            Err(
                Undelivered::NoServer
                | Undelivered::BreakerOpen
                | Undelivered::Failed(_)
                | Undelivered::NoTunnel
                | Undelivered::TooLate,
            ) => self.figures.failed(Failure::Connection),
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        // Timers are as precise as a millisecond.
        let is_over = |by: Instant| Instant::now() + Duration::from_millis(1) >= by;
        if !self.over && self.by.is_some_and(is_over) {
            self.figures.failed(Failure::Connection);
        }
    }
}
