//! `[middleware.NAME]`, valid: what is done to requests and responses on their way.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, uri::PathAndQuery};

use super::{Network, Pattern, ServiceId};
use crate::middleware::{basic_auth::User, compress::Coding};

/// `[middleware.NAME]`, or a table in a chain; then the name is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Middleware {
    pub name: Arc<str>,
    pub kind: MiddlewareKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MiddlewareKind {
    Headers(Headers),
    Redirect(Redirect),
    /// Prefixes as of routes: whole segments, no slash at the end.
    StripPath(Vec<Arc<str>>),
    /// Begins with a slash and doesn't end with one.
    AddPath(Arc<str>),
    ReplacePath(ReplacePath),
    Clients {
        /// `None`: everybody.
        allow: Option<Vec<Network>>,
        deny: Vec<Network>,
    },
    BasicAuth(BasicAuth),
    ForwardAuth(ForwardAuth),
    RateLimit(RateLimit),
    /// At least 1.
    Concurrency(usize),
    /// In bytes.
    BodyLimit(u64),
    /// In bytes.
    Buffer(u64),
    Timeouts {
        first_byte: Option<Duration>,
        total: Option<Duration>,
    },
    Compress(Compress),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers {
    pub request: HeaderChanges,
    pub response: HeaderChanges,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderChanges {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, Template)>,
    pub add: Vec<(HeaderName, Template)>,
}

/// A value with places to fill in. What is filled in is always fit for a header field.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    Fixed(HeaderValue),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(Arc<str>),
    ClientIp,
    Host,
    Scheme,
    RequestId,
    Route,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    pub scheme: Option<http::uri::Scheme>,
    /// With a port if need be.
    pub host: Option<Arc<str>>,
    pub path: Option<ReplacePath>,
    /// Default 308.
    pub status: StatusCode,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReplacePath {
    pub regex: Pattern,
    /// Begins with a slash, or with a group.
    pub to: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BasicAuth {
    /// At least one, each name once.
    pub users: Vec<User>,
    pub realm: Arc<str>,
    pub user_header: Option<HeaderName>,
    pub pass_on: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ForwardAuth {
    pub service: ServiceId,
    pub path: PathAndQuery,
    pub copy: Vec<HeaderName>,
    /// Default 5 s.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// From one request to the next, once the burst is used up.
    pub every: Duration,
    /// At least 1.
    pub burst: u32,
    pub by: RateKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    Client,
    Route,
    Header(HeaderName),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Compress {
    /// At least one, the dearest first.
    pub with: Vec<Coding>,
    /// In bytes.
    pub min_size: u64,
    /// In lower case, beside the built-in ones.
    pub types: Vec<Arc<str>>,
}

impl MiddlewareKind {
    /// The key under which it is written.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Headers(_) => "headers",
            Self::Redirect(_) => "redirect",
            Self::StripPath(_) => "strip_path",
            Self::AddPath(_) => "add_path",
            Self::ReplacePath(_) => "replace_path",
            Self::Clients { .. } => "clients",
            Self::BasicAuth(_) => "basic_auth",
            Self::ForwardAuth(_) => "forward_auth",
            Self::RateLimit(_) => "rate_limit",
            Self::Concurrency(_) => "concurrency",
            Self::BodyLimit(_) => "body_limit",
            Self::Buffer(_) => "buffer",
            Self::Timeouts { .. } => "timeouts",
            Self::Compress(_) => "compress",
        }
    }

    /// Lists and prefixes that it asks.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        let (allow, deny) = match self {
            Self::Clients { allow, deny } => (allow.as_deref().unwrap_or_default(), deny.as_slice()),
            _ => (&[][..], &[][..]),
        };
        allow.iter().chain(deny)
    }

    /// Whether no request passes it.
    #[must_use]
    pub fn answers_always(&self) -> bool {
        matches!(self, Self::Redirect(_))
    }
}

/// `name (kind)`, as `weir explain` shows a chain.
impl fmt::Display for Middleware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind.key())
    }
}
