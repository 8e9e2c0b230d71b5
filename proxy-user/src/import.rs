//! Reads the configurations of other proxies and writes one of Weir's.
//!
//! Each importer parses its language and puts what it understands into a [`Draft`]; the draft becomes TOML that
//! [`crate::config`] accepts, whatever came in ([`settle`]). What an importer doesn't understand is left out by name. Where
//! that could open something that was closed, the entrypoint is held back: it listens on loopback until somebody has
//! looked.
//!
//! Nothing here writes files or asks the network. Texts are bounded in size and depth, since they come from anywhere.

mod convert;
pub mod draft;
pub mod haproxy;
mod included;
pub mod nginx;
mod settle;
#[cfg(test)]
mod tests;
pub mod traefik;

use std::{path::PathBuf, sync::Arc};

pub use draft::{Draft, LeftOut, Place};
pub use settle::{Imported, settle};

/// What a file of any of these languages has at most.
pub const LARGEST: usize = 4 << 20;

/// A file to import.
#[derive(Debug, Clone)]
pub struct Source {
    /// As it is called in messages.
    pub name: Arc<str>,
    pub path: PathBuf,
    pub text: String,
}

/// Why nothing could be imported: the first thing in the text that isn't of its language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {sentence}")]
pub struct ImportFault {
    pub place: Place,
    pub sentence: String,
}

impl ImportFault {
    fn new(place: &Place, sentence: impl Into<String>) -> Self {
        Self { place: place.clone(), sentence: sentence.into() }
    }
}
