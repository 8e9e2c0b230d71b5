//! Routes that carry connections untouched, valid.

use std::sync::Arc;

use super::{EntrypointId, HostMatch, PageId, ServiceId};

/// A `[[route]]` with `passthrough`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedRoute {
    /// As a route's of HTTP; no two routes of either kind are written with the same one.
    pub name: Arc<str>,
    /// At least one, each once. With `sni`, those with TLS or TCP; without, those with TCP or UDP.
    pub entrypoints: Vec<EntrypointId>,
    /// Exact names and wildcards, each once. Empty: all that no `sni` of the entrypoint takes.
    pub sni: Vec<HostMatch>,
    /// Neither it nor what it is made of mirrors.
    pub service: ServiceId,
    /// Never without `sni`.
    pub on_outage: Option<PageId>,
}

impl CarriedRoute {
    /// Whether it takes what comes in at an entrypoint.
    #[must_use]
    pub fn is_at(&self, entrypoint: EntrypointId) -> bool {
        self.entrypoints.contains(&entrypoint)
    }
}
