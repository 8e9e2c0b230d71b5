//! Benchmarks: ratios against peers in the same run, because the machine is shared and its clock time isn't ours.

pub mod gate;
pub mod http;
