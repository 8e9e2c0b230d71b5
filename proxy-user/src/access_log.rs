//! The access logs: a line for each request, written when the last byte of its answer is on its way.
//!
//! A request never waits for a log. Each worker formats into buffers of its own ([`WorkerLog`]), one for each of the
//! [`outputs`], and hands whole chunks to the thread of its [`sink`]; when that can't keep up, chunks are dropped and
//! counted, not queued without bound. What is written of a request is decided by its [`ending`] and by [`outputs::Output`];
//! what must not be written is left out by [`redact`]. Whoever has records of another kind (connections, say) formats them
//! itself, and uses the same sinks: they know nothing but lines.

pub mod attempts;
pub mod connections;
pub mod ending;
pub mod format;
pub mod outputs;
pub mod redact;
pub mod sink;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Version, uri::PathAndQuery};

use crate::{
    access_log::{
        attempts::Attempted,
        ending::{Ended, Flags, Timings},
        format::Stamp,
        outputs::{AccessLogs, Noted},
    },
    body::Received,
    hygiene::link::Link,
    middleware::concurrency::Permit,
    trace::Trace,
};

/// A buffer is handed over when it holds this much, or when the worker's ticker comes by.
const CHUNK: usize = 64 * 1024;

/// What is known of one request and its answer, gathered on its way.
#[derive(Debug)]
pub struct Exchange {
    pub log: Rc<WorkerLog>,
    pub began: Instant,
    pub began_at: SystemTime,
    /// The client's address.
    pub client: HeaderValue,
    pub method: Method,
    pub host: Option<HeaderValue>,
    pub path: Option<PathAndQuery>,
    pub version: Version,
    pub user_agent: Option<HeaderValue>,
    pub referer: Option<HeaderValue>,
    pub request_id: HeaderValue,
    pub entrypoint: Arc<str>,
    pub route: Option<Arc<str>>,
    /// The server that answered, or the last one that was asked.
    pub server: Option<Arc<str>>,
    /// The service that was asked, where the route's own is made of others.
    pub variant: Option<Arc<str>>,
    /// From the first attempt's begin to the answer's head.
    pub server_took: Option<Duration>,
    /// Where it has been, unless the first server that was asked has answered it.
    pub attempts: Vec<Attempted>,
    pub status: StatusCode,
    pub received: Rc<Received>,
    pub bytes_out: u64,
    pub flags: Flags,
    pub timings: Timings,
    /// Header fields that a log wants.
    pub noted: Option<Box<Noted>>,
    /// `None`: nobody traces.
    pub trace: Option<Box<Trace>>,
    /// The client's connection, which knows why a client is let go.
    pub link: Rc<Link>,
    /// Places that it takes up until it is over.
    pub held: Vec<Permit>,
    /// Its line is written.
    pub finished: bool,
}

/// What a request is noted with that nobody has answered, because its client has left: as nginx does.
pub fn unanswered() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// What is known of a request's own servers: see [`Exchange::set_aside`].
#[derive(Debug)]
pub struct Aside {
    server: Option<Arc<str>>,
    variant: Option<Arc<str>>,
    server_took: Option<Duration>,
    attempts: Vec<Attempted>,
    timings: Timings,
    retries: u8,
    breaker: bool,
}

/// A worker's part of the access logs.
#[derive(Debug, Default)]
pub struct WorkerLog {
    logs: RefCell<Arc<AccessLogs>>,
    /// One for each output.
    buffers: RefCell<Vec<Vec<u8>>>,
    stamp: RefCell<Stamp>,
    /// The worker ends: what is under way now is cut off.
    cutting: Cell<bool>,
}

// === impl Exchange ===

impl Exchange {
    /// Of a request that is this one's copy. It is never written.
    pub fn unlogged(&self) -> Self {
        Self {
            log: self.log.clone(),
            began: self.began,
            began_at: self.began_at,
            client: self.client.clone(),
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            version: self.version,
            user_agent: None,
            referer: None,
            request_id: self.request_id.clone(),
            entrypoint: self.entrypoint.clone(),
            link: self.link.clone(),
            route: self.route.clone(),
            server: None,
            variant: None,
            server_took: None,
            attempts: Vec::new(),
            status: self.status,
            received: Rc::default(),
            bytes_out: 0,
            flags: Flags::default(),
            timings: Timings::default(),
            noted: None,
            trace: None,
            held: Vec::new(),
            finished: true,
        }
    }

    /// Takes out what is known of servers, while the request asks some on the side.
    pub fn set_aside(&mut self) -> Aside {
        Aside {
            server: self.server.take(),
            variant: self.variant.take(),
            server_took: self.server_took.take(),
            attempts: std::mem::take(&mut self.attempts),
            timings: std::mem::take(&mut self.timings),
            retries: std::mem::take(&mut self.flags.retries),
            breaker: std::mem::take(&mut self.flags.breaker),
        }
    }

    /// Forgets those that were asked on the side.
    pub fn restore(&mut self, aside: Aside) {
        let Aside { server, variant, server_took, attempts, timings, retries, breaker } = aside;
        (self.server, self.variant, self.server_took) = (server, variant, server_took);
        (self.attempts, self.timings) = (attempts, timings);
        (self.flags.retries, self.flags.breaker) = (retries, breaker);
    }

    /// The client doesn't get the rest of the answer: it has left, or is let go, or this host ends.
    pub fn broken_off(&mut self) {
        if self.log.cutting.get() {
            self.flags.cut = true;
        } else {
            match self.link.why_let_go() {
                None => self.flags.client_left = true,
                fault => self.flags.refused = fault,
            }
        }
    }

    /// The request is over: writes its line.
    pub fn finish(mut self: Box<Self>) {
        self.finished = true;
        self.over();
    }

    fn over(&mut self) {
        let Some(ended) = self.log.clone().write(self) else { return };
        if let Some(trace) = self.trace.take() {
            trace.over(self, &ended);
        }
    }
}

impl Drop for Exchange {
    /// A request that is let go in the middle: nobody waits for its answer any more.
    fn drop(&mut self) {
        if !self.finished {
            self.broken_off();
            self.over();
        }
    }
}

// === impl WorkerLog ===

impl WorkerLog {
    /// Takes other outputs; what the buffers hold goes to the old ones.
    pub fn switch_to(&self, logs: &Arc<AccessLogs>) {
        self.flush();
        *self.buffers.borrow_mut() = vec![Vec::new(); logs.outputs.len()];
        *self.logs.borrow_mut() = logs.clone();
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        let logs = self.logs.borrow();
        for (buffer, output) in self.buffers.borrow_mut().iter_mut().zip(&logs.outputs) {
            if !buffer.is_empty() {
                hand_over(buffer, output);
            }
        }
    }

    /// Whatever is under way from now on is cut off by this host.
    pub fn cut(&self) {
        self.cutting.set(true);
    }

    /// A connection that was carried untouched is over.
    pub fn connection(&self, connection: &connections::Connection<'_>) {
        let logs = self.logs.borrow();
        for (buffer, output) in self.buffers.borrow_mut().iter_mut().zip(&logs.outputs) {
            if output.wants_connection(connection) {
                output.connection(connection, buffer);
                if buffer.len() >= CHUNK {
                    hand_over(buffer, output);
                }
            }
        }
    }

    /// `None`: nobody wants to know.
    fn write(&self, exchange: &Exchange) -> Option<Ended> {
        let logs = self.logs.borrow();
        if logs.outputs.is_empty() && exchange.trace.is_none() {
            return None;
        }
        let ended = Ended::of(exchange);
        for (buffer, output) in self.buffers.borrow_mut().iter_mut().zip(&logs.outputs) {
            if output.wants(exchange, &ended) {
                output.line(exchange, &ended, &logs.redact, &mut self.stamp.borrow_mut(), buffer);
                if buffer.len() >= CHUNK {
                    hand_over(buffer, output);
                }
            }
        }
        Some(ended)
    }
}

fn hand_over(buffer: &mut Vec<u8>, output: &outputs::Output) {
    output.sink.take(std::mem::replace(buffer, Vec::with_capacity(CHUNK + 1024)));
}

impl Drop for WorkerLog {
    /// The last requests end with the worker's runtime, after everything else.
    fn drop(&mut self) {
        self.flush();
    }
}
