//! One attempt to have a request answered by one server: a pooled or new connection, the request, the head of the
//! answer. What to make of a failure is decided in [`crate::request`].

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use http::{request, response};

use crate::{
    body::RequestBody,
    clock::Moment,
    service::{Picked, Service},
    upstream::{
        connect::{self, ConnectFault},
        http1::{Connection, Fault},
        pool::{Lease, Pool},
        waiting::{GaveUp, WaitingRoom},
    },
};

/// The head of an answer; its body streams behind it over the leased connection.
#[derive(Debug)]
pub struct Answer {
    pub head: response::Parts,
    /// When it came.
    pub at: Instant,
    pub lease: Lease,
}

/// An attempt that brought no answer.
#[derive(Debug)]
pub struct Failed {
    pub fault: AttemptFault,
    /// The request's body, when not a byte of the request has left: any server may have it next.
    pub unsent: Option<RequestBody>,
    /// It broke on a connection from the pool: most likely the server closed that while the request was on its way, and
    /// has never read it.
    pub stale: bool,
}

/// Why an attempt failed. It is the server's fault, or the network's on the way to it.
#[derive(Debug, thiserror::Error)]
pub enum AttemptFault {
    #[error(transparent)]
    Connect(ConnectFault),
    #[error("the server fell silent")]
    Silent,
    #[error("no answer within {0:?}")]
    FirstByteTimeout(Duration),
    #[error("the connection broke before an answer came: {0}")]
    Broke(Fault),
    #[error(transparent)]
    ClientBroke(Fault),
}

/// What an attempt uses of its worker.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    pub pool: &'a Rc<Pool>,
    pub waiting: &'a WaitingRoom,
}

/// Which connections an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    PooledOrNew,
    New,
}

/// Sends a request to the server that was picked and waits for the head of its answer.
pub async fn attempt(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    connections: Connections,
    head: &request::Parts,
    mut body: RequestBody,
) -> Result<Answer, Failed> {
    let server = picked.server;
    // A pooled connection may turn out to be closed by the server. What was not sent goes to the next one; the
    // pool is finite, so this ends.
    let pooled = || match connections {
        Connections::PooledOrNew => means.pool.take(server.pool_key),
        Connections::New => None,
    };
    while let Some(connection) = pooled() {
        match exchange(means, service, picked, connection, head, body).await {
            Err(Failed { fault: AttemptFault::Broke(_), unsent: Some(unsent), .. }) => body = unsent,
            Err(failed) => {
                let stale = matches!(failed.fault, AttemptFault::Broke(_));
                return Err(Failed { stale, ..failed });
            }
            answered => return answered,
        }
    }
    match connect::connect(server.addr, service.tls.as_ref(), service.timeouts.connect).await {
        Ok(connection) => exchange(means, service, picked, connection, head, body).await,
        Err(fault) => {
            server.health.suspect();
            Err(Failed { fault: AttemptFault::Connect(fault), unsent: Some(body), stale: false })
        }
    }
}

async fn exchange(
    means: Means<'_>,
    service: &Service,
    picked: Picked<'_>,
    mut connection: Box<Connection>,
    head: &request::Parts,
    body: RequestBody,
) -> Result<Answer, Failed> {
    let server = picked.server;
    let answered = means
        .waiting
        .wait(&server.health, picked.silences, service.timeouts.first_byte, connection.exchange(head, body))
        .await;
    match answered {
        Ok(Ok(head)) => {
            let at = Instant::now();
            server.health.heard(Moment::of(at));
            let lease = Lease::new(server.pool_key, means.pool.clone(), connection, server.health.clone());
            Ok(Answer { head, at, lease })
        }
        Ok(Err(fault @ (Fault::Client(_) | Fault::WrongLength))) => {
            Err(Failed { fault: AttemptFault::ClientBroke(fault), unsent: None, stale: false })
        }
        Ok(Err(fault)) => {
            server.health.suspect();
            let unsent = connection.take_back();
            Err(Failed { fault: AttemptFault::Broke(fault), unsent, stale: false })
        }
        Err(GaveUp::ServerSilent) => Err(Failed { fault: AttemptFault::Silent, unsent: None, stale: false }),
        Err(GaveUp::FirstByteTimeout) => {
            server.health.suspect();
            let fault = AttemptFault::FirstByteTimeout(service.timeouts.first_byte);
            Err(Failed { fault, unsent: None, stale: false })
        }
    }
}
