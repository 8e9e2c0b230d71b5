//! `[[maintenance]]`, valid.

use std::sync::Arc;

use super::{HostMatch, Network, PageId};
use crate::maintenance::{Span, weekly::Weekly};

#[derive(Debug, Clone, PartialEq)]
pub struct Maintenance {
    /// Names of routes. With no hosts either: all requests.
    pub routes: Vec<Arc<str>>,
    /// Names and wildcards.
    pub hosts: Vec<HostMatch>,
    pub when: Recurrence,
    pub allow: Vec<Network>,
    pub except: Vec<Arc<str>>,
    /// Default `maintenance`.
    pub page: PageId,
    pub why: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Recurrence {
    Once(Span),
    Weekly(Weekly),
}
