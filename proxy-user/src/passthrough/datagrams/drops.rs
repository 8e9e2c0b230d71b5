//! Why a client's or a server's datagram was not carried on. Counted by entrypoint; plain atomics, which outlive reloads.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::errno::Errno;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// No server takes new sessions.
    NoServer,
    /// The client, or all together, have as many sessions as they may.
    TooMany,
    /// The system gave no socket or port for another one.
    NoSocket,
    /// It is longer than the way to the server takes.
    TooLong,
    /// It could not be sent to the server: there is no way, or too much waits already.
    ToServer,
    /// Likewise to the client.
    ToClient,
}

/// Of an entrypoint.
#[derive(Debug, Default)]
pub struct Drops([AtomicU64; Dropped::ALL.len()]);

// === impl Dropped ===

impl Dropped {
    pub const ALL: [Self; 6] =
        [Self::NoServer, Self::TooMany, Self::NoSocket, Self::TooLong, Self::ToServer, Self::ToClient];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::TooMany => "too_many",
            Self::NoSocket => "no_socket",
            Self::TooLong => "too_long",
            Self::ToServer => "to_server",
            Self::ToClient => "to_client",
        }
    }

    pub fn to_server(error: &io::Error) -> Self {
        if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) { Self::TooLong } else { Self::ToServer }
    }
}

// === impl Drops ===

impl Drops {
    pub fn count(&self, why: Dropped) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Those that occurred.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        Dropped::ALL
            .into_iter()
            .map(|why| (why.name().to_owned(), self.0[why as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
