//! The store that the hosts of a fleet share: which configuration runs where, and what each host says of itself.
//!
//! [`layout`] is what stands in it, and pure; [`etcd`] speaks to it. A [`etcd::Session`] is one connection to one endpoint:
//! whatever goes wrong on it ends it, and the next begins at another endpoint by reading everything anew. So a restart, a
//! compaction and a partition are all the same case. Nothing here is on a request's way, and nothing waits for the store: when
//! it is away, every host goes on with what it has.

pub mod address;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod layout;
