//! What a request's attempts say of the servers that they went to, and of the service as a whole: counted for ejection
//! and for the breaker. Services without either pay for two looks at an `Option`.

use std::time::{Duration, Instant};

use crate::{
    clock::Moment,
    health::{
        breaker::{Admitted, Breaker, Turn},
        window::Ended,
    },
    journal::{Kind, Note},
    service::{Picked, Service},
    upstream::attempt::{Answer, AttemptFault, Failed},
};

/// A request on its way through a service, from admission on. What its last attempt said is counted when this is dropped;
/// a request that ended before any of its attempts says nothing.
#[derive(Debug)]
pub struct Watch<'a> {
    service: &'a Service,
    breaker: Option<(&'a Breaker, Admitted)>,
    began: Instant,
    last: Option<Ended>,
}

/// The service's breaker lets no request through just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl<'a> Watch<'a> {
    /// # Errors
    /// When the service's breaker is open.
    pub fn begin(service: &'a Service, began: Instant) -> Result<Self, Broken> {
        let breaker = match &service.breaker {
            None => None,
            Some(breaker) => {
                let (admitted, turn) = breaker.admit(Moment::recent(), fastrand::f64);
                tell(service, turn);
                Some((breaker, admitted.ok_or(Broken)?))
            }
        };
        Ok(Self { service, breaker, began, last: None })
    }

    /// An attempt has ended.
    pub fn saw(&mut self, picked: Picked<'_>, attempt: &Result<Answer, Failed>) {
        if self.breaker.is_none() && self.service.eject.is_none() {
            return;
        }
        match attempt {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                self.judge(picked, Some(status), &|| format!("answers with status {status}"));
                self.last = Some(self.ended(Some(status), answer.at.saturating_duration_since(self.began)));
            }
            // The client's fault, the configuration's, or a server's way to say that it wants no more requests over this connection.
            Err(Failed { fault: AttemptFault::ClientBroke(_) | AttemptFault::NoTunnel, .. })
            | Err(Failed { stale: true, .. } | Failed { refused: true, .. }) => {}
            Err(failed) => {
                self.judge(picked, None, &|| failed.fault.to_string());
                self.last = Some(self.ended(None, self.began.elapsed()));
            }
        }
    }

    /// A connection that is carried untouched has reached the server, or failed to.
    pub fn reached(&mut self, picked: Picked<'_>, failed: Option<&str>) {
        // What its servers say to it nobody here knows: no status is among those that count as failures.
        const FINE: u16 = 0;
        self.judge(picked, failed.is_none().then_some(FINE), &|| failed.unwrap_or_default().to_owned());
        self.last = Some(self.ended(failed.is_none().then_some(FINE), self.began.elapsed()));
    }

    fn ended(&self, status: Option<u16>, took: Duration) -> Ended {
        Ended {
            network: status.is_none(),
            error: status.is_none_or(|status| status >= 500),
            slow: self.breaker.is_some_and(|(breaker, _)| breaker.is_slow(took)),
        }
    }

    /// `status`: of its answer, if there was one.
    fn judge(&self, picked: Picked<'_>, status: Option<u16>, why: &dyn Fn() -> String) {
        let Some(ejector) = &self.service.eject else { return };
        let (service, server) = (&self.service.name, picked.server);
        let (ejection, now) = (&server.health.ejection, Moment::recent());
        let good =
            status.is_some_and(|status| !ejector.rules.status.iter().any(|range| range.contains(&status)));
        if good {
            if ejection.succeeded(now) {
                tracing::info!(%service, server = %server.addr, "the server that was ejected answers again");
                let message =
                    format!("server {} of `{service}`, which was ejected, answers again", server.addr);
                Note::new(Kind::ServerReadmitted, message).service(&**service).server(server.addr).write();
            }
            return;
        }
        if !ejection.failed(&ejector.rules, now) {
            return;
        }
        let servers = &self.service.servers;
        let out = || servers.iter().filter(|server| !server.health.status_at(now).usable()).count();
        if let Some(length) = ejector.eject(ejection, now, servers.len(), out, why) {
            let why = why();
            tracing::warn!(%service, server = %server.addr, why, "requests fail there: the server is ejected for {length} ms");
            let message = format!("server {} of `{service}` is ejected for {length} ms", server.addr);
            Note::new(Kind::ServerEjected, message).service(&**service).server(server.addr).why(why).write();
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some((breaker, admitted)) = self.breaker {
            tell(self.service, breaker.ended(admitted, self.last, Moment::recent()));
        }
    }
}

fn tell(service: &Service, turn: Option<Turn>) {
    let service = &service.name;
    let note = |kind, message| Note::new(kind, message).service(&**service);
    match turn {
        None => {}
        Some(Turn::Opened(why)) => {
            tracing::warn!(%service, why, "the breaker opens: the service gets no requests");
            note(Kind::BreakerOpened, format!("the breaker of `{service}` opens: it gets no requests"))
                .why(why)
                .write();
        }
        Some(Turn::Recovering) => {
            tracing::info!(%service, "a request on trial was answered: the service gets more and more requests again");
            note(Kind::BreakerRecovering, format!("`{service}` gets more and more requests again")).write();
        }
        Some(Turn::Closed) => {
            tracing::info!(%service, "the breaker is closed again");
            note(Kind::BreakerClosed, format!("the breaker of `{service}` is closed again")).write();
        }
    }
}
