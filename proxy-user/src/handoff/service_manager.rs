//! What systemd keeps for this daemon: its listening sockets, over a restart (`FileDescriptorStoreMax=` in the unit). Clients that
//! connect meanwhile wait in the queue, and the next daemon takes them.
//!
//! Sockets of HTTP/3 aren't kept: a datagram that waits for the next daemon means nothing to it, and clients send it again.

use std::{
    collections::BTreeMap,
    env, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::sockets::{At, Sockets};

/// The kernel takes 253 in one message.
const AT_A_TIME: usize = 200;

/// What it has of ours: by name, how many.
#[derive(Debug, Default)]
pub struct Store(BTreeMap<String, usize>);

/// What was kept for this process, or opened for it (a `.socket` unit).
pub fn kept() -> Sockets {
    let descriptors = match sd_notify::listen_fds() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tracing::warn!(%error, "what systemd has kept can't be taken: sockets are opened anew");
            return Sockets::default();
        }
    };
    // SAFETY: by the protocol of LISTEN_FDS (LISTEN_PID names this process) they are open, and this process's own; and nobody else
    // in it asks for them, since this is asked once, at its start.
    let owned = descriptors.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
    Sockets::of(owned)
}

impl Store {
    /// Whether there is somebody to keep anything.
    pub fn is_there() -> bool {
        env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// Has these kept, and nothing else. Costs next to nothing while nothing has changed.
    pub fn follow(&mut self, sockets: &[(At, Vec<BorrowedFd<'_>>)]) {
        let mut now: BTreeMap<String, Vec<BorrowedFd<'_>>> = BTreeMap::new();
        for (at, descriptors) in sockets.iter().filter(|(at, _)| !matches!(at, At::Udp(_))) {
            now.entry(at.name()).or_default().extend(descriptors);
        }
        for gone in self.0.keys().filter(|name| !now.contains_key(*name)) {
            tell(&format!("FDSTOREREMOVE=1\nFDNAME={gone}"), &[]);
        }
        for (name, descriptors) in &now {
            // What it has already it keeps once.
            if self.0.get(name) != Some(&descriptors.len()) {
                for some in descriptors.chunks(AT_A_TIME) {
                    tell(&format!("FDSTORE=1\nFDNAME={name}"), some);
                }
            }
        }
        self.0 = now.into_iter().map(|(name, descriptors)| (name, descriptors.len())).collect();
    }
}

fn tell(words: &str, beside: &[BorrowedFd<'_>]) {
    if let Err(error) = send(words, beside) {
        tracing::debug!(%error, "systemd can't be asked to keep sockets");
    }
}

fn send(words: &str, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let raw: Vec<RawFd> = beside.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[io::IoSlice::new(words.as_bytes())],
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
