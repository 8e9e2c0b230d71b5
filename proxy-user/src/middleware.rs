//! What is done to a request between its route and its server, and to the response on its way back.
//!
//! A chain is built once per snapshot. Requests pass its steps in order, and the first step that doesn't let one through
//! halts it; [`crate::request`] turns a [`Halt`] into an answer, like every other refusal. Responses, also those that Weir
//! makes itself, pass in the reverse order. A route without middleware has an empty chain, and pays for a look at it.

pub mod basic_auth;
pub mod body;
pub mod compress;
pub mod concurrency;
pub mod forward_auth;
pub mod headers;
pub mod paths;
pub mod rate_limit;
pub mod reason;
pub mod redirect;
pub mod shape;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};

use crate::{
    access_log::Exchange,
    admission::PrefixSet,
    body::RequestBody,
    config::model::{Compress, Headers, MiddlewareKind, Redirect, ReplacePath},
    forwarding,
    service::Service,
    upstream::attempt::Means,
};

use headers::Facts;

/// The steps of one route, in the order of its requests.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Box<[Arc<Step>]>,
    /// The strictest of all steps.
    first_byte: Option<Duration>,
    total: Option<Duration>,
    /// One of the steps looks at the path.
    rewrites: bool,
}

/// A middleware as it runs. What it counts outlives reloads, by its name.
#[derive(Debug)]
pub struct Step {
    pub name: Arc<str>,
    pub kind: StepKind,
}

#[derive(Debug)]
pub enum StepKind {
    Headers(Headers),
    Redirect(Redirect),
    StripPath(Vec<Arc<str>>),
    AddPath(Arc<str>),
    ReplacePath(ReplacePath),
    Clients { allow: Option<PrefixSet>, deny: PrefixSet },
    BasicAuth(basic_auth::BasicAuth),
    ForwardAuth(forward_auth::ForwardAuth),
    RateLimit(rate_limit::Limiter),
    Concurrency(concurrency::Room),
    BodyLimit(u64),
    Buffer(u64),
    Timeouts { first_byte: Option<Duration>, total: Option<Duration> },
    Compress(Compress),
}

/// A request on its way through a chain.
#[derive(Debug)]
pub struct Passage<'a> {
    pub head: &'a mut request::Parts,
    /// The host that the server is asked for.
    pub host: &'a mut Option<HeaderValue>,
    pub body: &'a mut RequestBody,
    pub exchange: &'a mut Exchange,
    pub means: Means<'a>,
    pub client: IpAddr,
    pub facts: &'a Facts,
    /// The path as routes compare it, where it was sent in another form.
    pub path: Option<&'a str>,
}

/// Why a chain doesn't let a request through.
#[derive(Debug)]
pub enum Halt {
    /// It is sent elsewhere.
    Redirect {
        status: StatusCode,
        location: HeaderValue,
    },
    /// The client's address isn't one of those that may.
    ClientDenied,
    /// There is no such user, or the password is another.
    Unauthorized {
        challenge: HeaderValue,
    },
    /// The auth service's own answer.
    AuthDenied(Box<Response<Bytes>>),
    /// The auth service didn't answer.
    AuthUnavailable,
    RateLimited {
        retry_after: Duration,
    },
    /// Too many at once.
    Busy,
    TooLarge,
    /// The client left before its body was whole.
    ClientLeft,
    /// It can't be followed: it names no host, or its new path is none.
    Unfit,
}

// === impl Chain ===

impl Chain {
    pub fn new(steps: impl IntoIterator<Item = Arc<Step>>) -> Self {
        let mut chain =
            Self { steps: steps.into_iter().collect(), first_byte: None, total: None, rewrites: false };
        let strictest = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        for step in &chain.steps {
            chain.rewrites |= step.kind.looks_at_the_path();
            if let StepKind::Timeouts { first_byte, total } = step.kind {
                chain.first_byte = strictest(chain.first_byte, first_byte);
                chain.total = strictest(chain.total, total);
            }
        }
        chain
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes a request through all steps.
    ///
    /// # Errors
    /// When one of them doesn't let it through.
    pub async fn admit(&self, mut passage: Passage<'_>) -> Result<(), Halt> {
        if let Some(path) = passage.path.filter(|_| self.rewrites) {
            // What is rewritten must be what was compared.
            paths::set_path(&mut passage.head.uri, path)?;
        }
        for step in &self.steps {
            step.admit(&mut passage).await?;
        }
        Ok(())
    }

    /// Changes the head of a response as the steps say.
    pub fn dress(&self, headers: &mut HeaderMap, facts: &Facts) {
        for step in self.steps.iter().rev() {
            if let StepKind::Headers(changes) = &step.kind {
                headers::apply(&changes.response, headers, facts);
            }
        }
    }

    /// How the response to this request may be compressed. Asked before the request's fields travel on.
    pub fn compression(&self, head: &request::Parts) -> Option<compress::Offer<'_>> {
        self.steps.iter().find_map(|step| match &step.kind {
            StepKind::Compress(settings) => Some(compress::Offer::new(settings, head)),
            _ => None,
        })
    }

    /// When a request that began then must have the first byte of its answer.
    pub fn first_byte_by(&self, began: Instant) -> Option<Instant> {
        self.first_byte.into_iter().chain(self.total).min().map(|most| began + most)
    }

    /// And when the last.
    pub fn over_by(&self, began: Instant) -> Option<Instant> {
        self.total.map(|total| began + total)
    }
}

// === impl StepKind ===

impl StepKind {
    fn looks_at_the_path(&self) -> bool {
        match self {
            Self::StripPath(_) | Self::AddPath(_) | Self::ReplacePath(_) => true,
            Self::Redirect(redirect) => redirect.path.is_some(),
            _ => false,
        }
    }
}

// === impl Halt ===

impl Halt {
    /// What the client gets. `plain`: what Weir says with a status alone.
    pub fn answer(
        self,
        request_id: &HeaderValue,
        plain: impl Fn(StatusCode) -> Response<Bytes>,
    ) -> Response<Bytes> {
        let with = |status, name, value: HeaderValue| {
            let mut response = plain(status);
            response.headers_mut().insert(name, value);
            response
        };
        match self {
            Self::Redirect { status, location } => with(status, header::LOCATION, location),
            Self::ClientDenied => plain(StatusCode::FORBIDDEN),
            Self::Unauthorized { challenge } => {
                with(StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, challenge)
            }
            Self::AuthDenied(answer) => {
                let mut answer = *answer;
                forwarding::towards_client(answer.headers_mut(), request_id);
                answer
            }
            Self::AuthUnavailable => plain(StatusCode::SERVICE_UNAVAILABLE),
            Self::RateLimited { retry_after } => {
                let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
                with(StatusCode::TOO_MANY_REQUESTS, header::RETRY_AFTER, seconds.max(1).into())
            }
            Self::Busy => with(StatusCode::SERVICE_UNAVAILABLE, header::RETRY_AFTER, 1_u64.into()),
            Self::TooLarge => plain(StatusCode::PAYLOAD_TOO_LARGE),
            Self::ClientLeft | Self::Unfit => plain(StatusCode::BAD_REQUEST),
        }
    }
}

// === impl Step ===

impl Step {
    /// The running form of a valid middleware. `before`: the step of that name until now.
    pub fn new(
        name: Arc<str>,
        kind: &MiddlewareKind,
        networks: impl Fn(&[crate::config::model::Network]) -> PrefixSet,
        services: &[Arc<Service>],
        before: Option<&Self>,
    ) -> Self {
        let before = before.map(|before| &before.kind);
        let kind = match kind {
            MiddlewareKind::Headers(headers) => StepKind::Headers(headers.clone()),
            MiddlewareKind::Redirect(redirect) => StepKind::Redirect(redirect.clone()),
            MiddlewareKind::StripPath(prefixes) => StepKind::StripPath(prefixes.clone()),
            MiddlewareKind::AddPath(prefix) => StepKind::AddPath(prefix.clone()),
            MiddlewareKind::ReplacePath(replace) => StepKind::ReplacePath(replace.clone()),
            MiddlewareKind::Clients { allow, deny } => {
                StepKind::Clients { allow: allow.as_deref().map(&networks), deny: networks(deny) }
            }
            MiddlewareKind::BasicAuth(auth) => StepKind::BasicAuth(basic_auth::BasicAuth::new(auth)),
            MiddlewareKind::ForwardAuth(auth) => StepKind::ForwardAuth(forward_auth::ForwardAuth {
                service: services[auth.service.0].clone(),
                settings: auth.clone(),
            }),
            MiddlewareKind::RateLimit(limit) => StepKind::RateLimit(match before {
                Some(StepKind::RateLimit(before)) => before.with(limit),
                _ => rate_limit::Limiter::new(limit),
            }),
            MiddlewareKind::Concurrency(most) => StepKind::Concurrency(match before {
                Some(StepKind::Concurrency(before)) => before.with(*most),
                _ => concurrency::Room::new(*most),
            }),
            MiddlewareKind::BodyLimit(most) => StepKind::BodyLimit(*most),
            MiddlewareKind::Buffer(most) => StepKind::Buffer(*most),
            MiddlewareKind::Timeouts { first_byte, total } => {
                StepKind::Timeouts { first_byte: *first_byte, total: *total }
            }
            MiddlewareKind::Compress(settings) => StepKind::Compress(settings.clone()),
        };
        Self { name, kind }
    }

    async fn admit(&self, passage: &mut Passage<'_>) -> Result<(), Halt> {
        match &self.kind {
            StepKind::Headers(changes) => {
                headers::apply_to_request(&changes.request, passage);
                Ok(())
            }
            StepKind::Redirect(redirect) => redirect::admit(redirect, passage),
            StepKind::StripPath(prefixes) => paths::strip(prefixes, passage),
            StepKind::AddPath(prefix) => paths::add(prefix, passage),
            StepKind::ReplacePath(replace) => paths::replace(replace, passage),
            StepKind::Clients { allow, deny } => {
                let listed = allow.as_ref().is_none_or(|allow| allow.contains(passage.client));
                if listed && !deny.contains(passage.client) { Ok(()) } else { Err(Halt::ClientDenied) }
            }
            StepKind::BasicAuth(auth) => auth.admit(passage).await,
            StepKind::ForwardAuth(auth) => auth.admit(passage).await,
            StepKind::RateLimit(limiter) => limiter.admit(passage),
            StepKind::Concurrency(room) => room.admit(passage),
            StepKind::BodyLimit(most) => body::limit(*most, passage),
            StepKind::Buffer(most) => body::buffer(*most, passage).await,
            StepKind::Timeouts { .. } | StepKind::Compress(_) => Ok(()),
        }
    }
}
