//! Configuration: as written (`written`) → valid (`model`) → running ([`crate::snapshot`]).

pub mod model;
