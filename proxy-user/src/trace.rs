//! Tracing: a request's place in a trace, told onward as W3C Trace Context, and spans for those that are sampled.
//!
//! Sampling comes first: of a request that nobody traces, nothing is kept but its ids. Of one that is traced, what there
//! is to tell is gathered on its way ([`Trace`]), becomes one [`span::Record`] when it is over, and goes to the thread of the
//! [`exporter`] through a bounded queue. Nothing of it is encoded on a worker.

mod context;
mod exporter;
mod otlp;
pub mod span;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    access_log::{Exchange, attempts::Outcome, ending::Ended, redact::Redaction},
    address::ServerAddr,
    config::model::{self, Config, ParentTrust, Tracing},
    identity::Trust,
    page::why::Why,
    request::Caller,
};
use context::Context;
pub use context::hex;
use exporter::Exporter;
use span::{Attempt, Page, Record};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a configuration's `[tracing]` is when it runs. Reloads keep it as long as nothing of it changes.
#[derive(Debug)]
pub struct Tracer {
    settings: Tracing,
    redact: Arc<Redaction>,
    redacted: model::Redact,
    exporter: Exporter,
    sampled: AtomicU64,
}

/// A request's place in a trace.
#[derive(Debug)]
pub struct Trace {
    tracer: Arc<Tracer>,
    id: u128,
    /// The request's own span.
    span: u64,
    /// Of the one that asks.
    parent: Option<u64>,
    /// What it is told was continued, not begun here.
    continued: bool,
    /// `None`: nobody wants to see more of it.
    gathered: Option<Gathered>,
}

/// Of a request that is sampled.
#[derive(Debug, Default)]
struct Gathered {
    attempts: Vec<Attempt>,
    page: Option<Page>,
    /// When the handshake of its connection began, and how long it took.
    handshake: Option<(Instant, Duration)>,
    encrypted: bool,
    port: u16,
}

/// The id of the nth attempt's span. Distinct from all others of the request, without a place to keep it.
fn attempt_span(request: u64, nth: u64) -> u64 {
    request.wrapping_add(nth + 1).max(1)
}

// === impl Tracer ===

impl Tracer {
    /// # Errors
    /// When the system gives no thread, or refuses what TLS needs.
    pub fn of(config: &Config, before: Option<&Arc<Self>>) -> io::Result<Option<Arc<Self>>> {
        let Some(settings) = &config.tracing else { return Ok(None) };
        let redact = &config.log.redact;
        let same = |known: &&Arc<Self>| known.settings == *settings && known.redacted == *redact;
        if let Some(known) = before.filter(same) {
            return Ok(Some(known.clone()));
        }
        Ok(Some(Arc::new(Self {
            exporter: Exporter::start(&settings.collector)?,
            settings: settings.clone(),
            redact: Arc::new(Redaction::new(redact)),
            redacted: redact.clone(),
            sampled: AtomicU64::new(0),
        })))
    }

    /// Where a request stands, that came with these fields.
    pub fn begin(self: &Arc<Self>, caller: &Caller, trust: Trust, headers: &HeaderMap) -> Box<Trace> {
        let believed = match self.settings.parent {
            ParentTrust::Trusted => trust == Trust::Believed,
            ParentTrust::Always => true,
            ParentTrust::Never => false,
        };
        let parent = if believed { Context::among(headers) } else { None };
        let by_lot = || fastrand::u32(..model::Filter::ALL) < self.settings.sample;
        let sampled = parent.map_or_else(by_lot, |parent| parent.sampled);
        let gathered = sampled.then(|| {
            self.sampled.fetch_add(1, Ordering::Relaxed);
            Gathered {
                // Of the first request alone: the others found the connection open.
                handshake: caller.handshake.filter(|_| caller.requests.get() <= 1),
                encrypted: caller.session.is_some(),
                port: caller.local.port(),
                ..Gathered::default()
            }
        });
        Box::new(Trace {
            tracer: self.clone(),
            id: parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace),
            span: fastrand::u64(1..),
            parent: parent.map(|parent| parent.span),
            continued: parent.is_some(),
            gathered,
        })
    }

    /// Requests that were traced.
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Ordering::Relaxed)
    }

    /// Spans that nobody will see: the collector could not keep up, or could not be reached.
    pub fn dropped(&self) -> u64 {
        self.exporter.dropped()
    }

    pub fn exported(&self) -> u64 {
        self.exporter.exported()
    }

    /// Why the collector takes nothing just now.
    pub fn failing(&self) -> Option<String> {
        self.exporter.failing()
    }

    /// Waits until what there is has been sent, but not for long.
    pub fn settle(&self) {
        self.exporter.settle();
    }
}

// === impl Trace ===

impl Trace {
    /// The trace's id, if a collector sees it.
    pub fn sampled_id(&self) -> Option<u128> {
        self.is_sampled().then_some(self.id)
    }

    pub fn is_sampled(&self) -> bool {
        self.gathered.is_some()
    }

    /// As logs write it.
    pub fn id_text(&self) -> [u8; 32] {
        hex(self.id)
    }

    /// Makes the head of a request the one of the attempt that is begun next, or was begun last.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let attempts = self.gathered.as_ref().map_or(0, |gathered| gathered.attempts.len());
        let nth = attempts.saturating_sub(1) as u64;
        let span = if self.is_sampled() { attempt_span(self.span, nth) } else { self.span };
        let context = Context { trace: self.id, span, sampled: self.is_sampled() };
        if let Ok(value) = HeaderValue::from_bytes(&context.written()) {
            headers.insert(TRACEPARENT, value);
        }
        if !self.continued {
            // It belongs to a trace that ended here.
            headers.remove(TRACESTATE);
        }
    }

    /// Whether the head that the first attempt had doesn't do for the one that was begun last.
    pub fn is_told_anew(&self) -> bool {
        self.gathered.as_ref().is_some_and(|gathered| gathered.attempts.len() > 1)
    }

    pub fn begin_attempt(&mut self, attempt: Attempt) {
        if let Some(gathered) = &mut self.gathered {
            gathered.attempts.push(attempt);
        }
    }

    pub fn end_attempt(
        &mut self,
        server: ServerAddr,
        at: Instant,
        connect: Option<Duration>,
        outcome: Outcome,
    ) {
        let Some(gathered) = &mut self.gathered else { return };
        let is_it = |attempt: &&mut Attempt| attempt.server == server && attempt.ended.is_none();
        if let Some(attempt) = gathered.attempts.iter_mut().rev().find(is_it) {
            (attempt.ended, attempt.connect, attempt.outcome) = (Some(at), connect, Some(outcome));
        }
    }

    pub fn page(&mut self, begun: Instant, why: Why) {
        if let Some(gathered) = &mut self.gathered {
            gathered.page = Some(Page { begun, ended: Instant::now(), why });
        }
    }

    /// The request is over: its spans go on their way.
    pub fn over(self, exchange: &Exchange, ended: &Ended) {
        let Self { tracer, id, span, parent, continued: _, gathered } = self;
        let Some(Gathered { attempts, page, handshake, encrypted, port }) = gathered else { return };
        let mut path = Vec::new();
        let target = exchange.path.as_ref().map_or("", |path| path.as_str());
        tracer.redact.of_query(target.as_bytes(), |piece| path.extend_from_slice(piece));
        let began_at = exchange.began_at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        tracer.exporter.take(Box::new(Record {
            trace: id,
            span,
            parent,
            began: exchange.began,
            began_at,
            ended: ended.at,
            client: exchange.client.clone(),
            method: exchange.method.clone(),
            host: exchange.host.clone(),
            target: path,
            encrypted,
            port,
            version: exchange.version,
            user_agent: exchange.user_agent.clone(),
            request_id: exchange.request_id.clone(),
            entrypoint: exchange.entrypoint.clone(),
            route: exchange.route.clone(),
            variant: exchange.variant.clone(),
            status: exchange.status,
            bytes_in: exchange.received.bytes.get(),
            bytes_out: exchange.bytes_out,
            why: exchange.flags.why(),
            blame: ended.blame,
            attempts,
            page,
            handshake,
            redact: tracer.redact.clone(),
        }));
    }
}
