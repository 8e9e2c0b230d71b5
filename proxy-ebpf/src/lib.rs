//! What the kernel programs do, apart from being kernel programs.
//!
//! The logic reads a bounds-checked [`frame::Frame`], which XDP's and tc's contexts implement, and a test's
//! buffer does as well: one body of code serves both hooks and runs on the host. It calls no helper and knows
//! no map; [`gate::Tables`] is what it asks. The entry points, the maps, and the table from [`gate::Stop`] to
//! the kernel's verdicts are in `main.rs`.
//!
//! Everything is inlined into its entry point, so that the verifier sees each bounds check beside its access.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod ends;
pub mod flood;
pub mod forward;
pub mod frame;
pub mod gate;
pub mod handshake;
pub mod headers;
pub mod segment;
pub mod sum;
pub mod syn_ack;
pub mod verifier;
pub mod word;
