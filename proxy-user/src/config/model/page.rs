//! `[page.NAME]`, valid: read and held in memory.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{StatusCode, uri::PathAndQuery};

use super::{PageId, ServiceId};

/// `pages = { "502-504" = "maintenance" }`: within 400 to 599, none overlaps another; in their order.
pub type StatusPages = Vec<(RangeInclusive<u16>, PageId)>;

/// `[page.NAME]`. The pages `maintenance` and `error` always exist: built in, unless they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub name: Arc<str>,
    /// The file's bytes, or the built-in page.
    pub html: Bytes,
    /// By language.
    pub languages: Vec<(Arc<str>, Bytes)>,
    /// `None`: that of the answer that it replaces; else 503. 400 to 599.
    pub status: Option<StatusCode>,
    /// Default 30 s; whole seconds.
    pub retry_after: Duration,
    pub live: Option<LivePage>,
    /// By their path below the folder.
    pub assets: Vec<(Arc<str>, Bytes)>,
}

/// `service = "pages"`, `path = "/"`, `timeout = "300ms"`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    pub service: ServiceId,
    /// Default `/`.
    pub path: PathAndQuery,
    /// Default 300 ms; 10 ms to 10 s.
    pub timeout: Duration,
}
