//! Gets clients of a dead server to speak, so that they can be told.
//!
//! A reset must carry a number that only the two ends know. So the program makes one out of a packet of the client's, and a client
//! that waits for its server sends none. It is asked for one: an acknowledgement of nothing, which no connection takes, is
//! answered by one that says where the connection is (RFC 9293, 3.10.7.4). That meets the program, which resets it.
//!
//! No raw socket is needed for it, and so no capability but the one that programs are attached with (CAP_NET_ADMIN): a socket
//! that is put together in TCP_REPAIR, as if it were the connection's, probes the client's window when it is taken out of it, with
//! numbers that are none of the connection's. Then it goes without a word.

use std::{io, net::SocketAddr, os::fd::AsFd as _};

use socket2::{Domain, Protocol, Socket, Type};

use crate::handover::endpoint;

#[derive(Debug, Default)]
pub struct Nudger {
    /// It may not be done, and is not tried again.
    refused: bool,
}

impl Nudger {
    /// Sends a client something in the name of the address that it is connected to.
    pub fn nudge(&mut self, from: SocketAddr, client: SocketAddr) {
        if self.refused {
            return;
        }
        match nudge(from, client) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::info!(%error, "clients of a dead server are reset only when they send something");
                self.refused = true;
            }
            // What is lost is sent again with the next sweep.
            Err(error) => {
                tracing::debug!(%error, "a client of a dead server could not be asked for a packet");
            }
        }
    }
}

fn nudge(from: SocketAddr, client: SocketAddr) -> io::Result<()> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(client), kind, Some(Protocol::TCP))?;
    let fd = socket.as_fd();
    // From here on it takes an address that others listen at, connects without a handshake, and closes without an end.
    endpoint::silence(fd)?;
    socket.bind(&from.into())?;
    socket.connect(&client.into())?;
    endpoint::wake_and_probe(fd)?;
    endpoint::silence(fd)
}
