//! The fleet: hosts that run one configuration, which they have from a store that they share.
//!
//! There is no leader. What runs where is one value in the store ([`Current`](crate::store::layout::Current)), changed by
//! compare-and-swap: by whoever pushes, and by any host that finds it can't run what it is given. Each host decides by itself what
//! it runs, from what it knows ([`reconcile`], which is pure); [`link`] brings it news and carries its word, and when the store is
//! away, it knows what it knew. [`publish`] is what operators change, [`wait`] looks on until it is done.

#[cfg(feature = "etcd")]
pub mod agent;
#[cfg(feature = "etcd")]
pub mod certificates;
pub mod chronicle;
pub mod judge;
#[cfg(feature = "etcd")]
pub mod link;
pub mod member;
#[cfg(feature = "etcd")]
pub mod mirror;
#[cfg(feature = "etcd")]
pub mod publish;
pub mod reconcile;
pub mod report;
pub mod shared;
pub mod seal;
pub mod sharing;
pub mod survey;
#[cfg(feature = "etcd")]
pub mod wait;

use jiff::Timestamp;

/// Milliseconds since 1970: what hosts compare with each other.
#[must_use]
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
