//! The access log: one line for each request, written when the last byte of its answer is on its way.
//!
//! A request never waits for the log. Each worker formats into its own buffer ([`WorkerLog`]) and hands whole chunks
//! to one [`sink`] thread; when that can't keep up, chunks are dropped and counted, not queued without bound.

pub mod attempts;
pub mod connections;
pub mod format;
pub mod sink;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Version, uri::PathAndQuery};

use crate::{
    access_log::{attempts::Attempted, format::Stamp, sink::Sink},
    body::Received,
    hygiene::{Fault, link::Link},
    middleware::{concurrency::Permit, reason::Reason},
    page::why::Why,
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

/// How a request ended, where that is not plain from its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// More servers than one were asked: so many attempts beyond the first.
    pub retries: u8,
    /// Weir answered with a page in a server's place.
    pub page: Option<Why>,
    /// The server broke off in the middle of its answer.
    pub server_broke_off: bool,
    /// The client left before it had the whole answer.
    pub client_left: bool,
    /// The client broke a rule or a limit, and was told so.
    pub refused: Option<Fault>,
    /// The route's middleware answered in the server's place.
    pub halted: Option<Reason>,
}

/// A worker's part of the access log.
#[derive(Debug, Default)]
pub struct WorkerLog {
    buffer: RefCell<Vec<u8>>,
    stamp: RefCell<Stamp>,
    sink: RefCell<Option<Arc<Sink>>>,
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
            held: Vec::new(),
            finished: true,
        }
    }

    /// The request is over: writes its line.
    pub fn finish(mut self: Box<Self>) {
        self.finished = true;
        self.log.write(&self);
    }
}

impl Drop for Exchange {
    /// A request that is let go in the middle: nobody waits for its answer any more.
    fn drop(&mut self) {
        if !self.finished {
            self.flags.broken_off(&self.link);
            self.log.write(self);
        }
    }
}

// === impl Flags ===

impl Flags {
    /// The client doesn't get the rest of the answer: it has left, or takes nothing and is let go.
    pub fn broken_off(&mut self, link: &Link) {
        match link.why_let_go() {
            None => self.client_left = true,
            fault => self.refused = fault,
        }
    }
}

// === impl WorkerLog ===

impl WorkerLog {
    /// Takes another sink; what the buffer holds goes to the old one.
    pub fn switch_to(&self, sink: Option<Arc<Sink>>) {
        self.flush();
        *self.sink.borrow_mut() = sink;
    }

    /// Hands over what has gathered.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        let chunk = std::mem::replace(&mut *buffer, Vec::with_capacity(CHUNK + 1024));
        if let Some(sink) = &*self.sink.borrow() {
            sink.take(chunk);
        }
    }

    /// A connection that was carried untouched is over.
    pub fn connection(&self, connection: &connections::Connection<'_>) {
        let Some(format) = self.sink.borrow().as_ref().map(|sink| sink.format) else { return };
        let full = {
            let mut buffer = self.buffer.borrow_mut();
            connections::line(connections::is_json(format), connection, &mut buffer);
            buffer.len() >= CHUNK
        };
        if full {
            self.flush();
        }
    }

    fn write(&self, exchange: &Exchange) {
        let Some(format) = self.sink.borrow().as_ref().map(|sink| sink.format) else { return };
        let full = {
            let mut buffer = self.buffer.borrow_mut();
            format::line(format, exchange, &mut self.stamp.borrow_mut(), &mut buffer);
            buffer.len() >= CHUNK
        };
        if full {
            self.flush();
        }
    }
}

impl Drop for WorkerLog {
    /// The last connections end with the worker's runtime, after everything else.
    fn drop(&mut self) {
        self.flush();
    }
}
