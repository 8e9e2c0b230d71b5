//! Towards the servers: has a request answered by one of a service's servers ([`deliver`]), in one or more attempts
//! ([`attempt`]), over connections ([`connect`], [`http1`]) that are kept for later ([`pool`]) or were opened ahead ([`warm`]); watches over the requests that
//! wait for an answer ([`waiting`]) and over how many are tried again ([`budget`]).

pub mod attempt;
pub mod budget;
pub mod carrier;
pub mod connect;
pub mod deliver;
pub mod http1;
pub mod http2;
pub mod pool;
pub mod stream;
pub mod waiting;
pub mod warm;

pub use pool::Lease;
