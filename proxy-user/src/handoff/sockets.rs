//! Sockets that somebody else has bound: a predecessor, or the service manager. Who needs one takes it by its address; what nobody
//! takes is closed.
//!
//! They are told by what the kernel says of them and not by names that came along: a name can be wrong.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use socket2::{SockRef, Type};

use crate::{
    address::EntrypointAddr,
    connection::http3::steering::Elder,
    listen::{Listener, Transport},
};

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Sockets(Vec<Known>);

#[derive(Debug)]
struct Known {
    at: At,
    socket: OwnedFd,
    /// Predecessors that have connections at it.
    elders: Vec<Elder>,
}

// === impl At ===

impl At {
    /// Of a socket that listens, or takes datagrams; `None`: it is neither.
    pub fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let socket = SockRef::from(&socket);
        let (kind, local) = (socket.r#type().ok()?, socket.local_addr().ok()?);
        if kind == Type::DGRAM {
            return local.as_socket().map(Self::Udp);
        }
        if kind != Type::STREAM || !socket.is_listener().ok()? {
            return None;
        }
        match local.as_socket() {
            Some(at) => Some(Self::Tcp(at)),
            None => local.as_pathname().map(|path| Self::Unix(path.to_owned())),
        }
    }

    /// As a name that may stand where colons part names.
    pub fn name(&self) -> String {
        let (kind, place) = match self {
            Self::Tcp(at) => ("tcp", at.to_string()),
            Self::Udp(at) => ("udp", at.to_string()),
            Self::Unix(path) => ("unix", path.display().to_string()),
        };
        let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '_' };
        format!("{kind}-{}", place.chars().map(plain).collect::<String>())
    }
}

// === impl Sockets ===

impl Sockets {
    /// Of descriptors, whatever they are.
    pub fn of(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        let mut sockets = Self::default();
        for descriptor in descriptors {
            sockets.add(descriptor, Vec::new());
        }
        sockets
    }

    /// One more, at which `elders` may have connections.
    pub fn add(&mut self, socket: OwnedFd, elders: Vec<Elder>) {
        let Some(at) = At::of(socket.as_fd()) else {
            tracing::debug!("a descriptor that came along is no socket that listens");
            return;
        };
        // Whoever bound it may have wanted to wait for it.
        if SockRef::from(&socket).set_nonblocking(true).is_ok() {
            self.0.push(Known { at, socket, elders });
        }
    }

    /// The very same sockets once more: they stay open as long as one of the two has them.
    pub fn spare(&self) -> Self {
        let again = |known: &Known| {
            let elders = known.elders.iter().filter_map(|elder| {
                Some(Elder { epoch: elder.epoch, tunnel: elder.tunnel.try_clone().ok()? })
            });
            let socket = known.socket.try_clone().ok()?;
            Some(Known { at: known.at.clone(), socket, elders: elders.collect() })
        };
        Self(self.0.iter().filter_map(again).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that listen there.
    pub fn take(&mut self, (at, transport): (EntrypointAddr, Transport)) -> Vec<Listener> {
        let wanted = match transport {
            Transport::Tcp => At::Tcp(at.0),
            Transport::Udp | Transport::Datagrams => At::Udp(at.0),
        };
        let taken = self.0.extract_if(.., |known| known.at == wanted);
        let listener = |Known { socket, elders, .. }: Known| match transport {
            Transport::Tcp => Listener::Tcp(socket.into()),
            Transport::Udp | Transport::Datagrams => Listener::Udp(socket.into(), elders),
        };
        taken.map(listener).collect()
    }

    /// One that listens there.
    pub fn take_tcp(&mut self, at: SocketAddr) -> Option<std::net::TcpListener> {
        self.take_one(|known| *known == At::Tcp(at)).map(Into::into)
    }

    pub fn take_unix(&mut self, path: &Path) -> Option<std::os::unix::net::UnixListener> {
        // One whose file is gone, or is another socket's, can't be reached.
        let is_it = |known: &At| matches!(known, At::Unix(known) if known == path && path.exists());
        self.take_one(is_it).map(Into::into)
    }

    fn take_one(&mut self, wanted: impl Fn(&At) -> bool) -> Option<OwnedFd> {
        let index = self.0.iter().position(|known| wanted(&known.at))?;
        Some(self.0.swap_remove(index).socket)
    }

    /// Closes what is left, and tells of it.
    pub fn close_the_rest(&mut self) {
        let mut left: Vec<_> = self.0.drain(..).map(|known| known.at.name()).collect();
        left.dedup();
        if !left.is_empty() {
            tracing::info!("the configuration has no use any more for the sockets {}", left.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn sockets_are_found_by_where_they_are_and_what_is_none_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let connected = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let at = EntrypointAddr(tcp.local_addr().unwrap());
        let second: OwnedFd = tcp.try_clone().unwrap().into();
        let mut sockets =
            Sockets::of([tcp.into(), udp.into(), unix.into(), file.into(), connected.into(), second]);
        assert_eq!(sockets.take((at, Transport::Tcp)).len(), 2, "all workers'");
        assert_eq!(sockets.take((at, Transport::Tcp)).len(), 0, "taken is taken");
        assert!(sockets.take_tcp(at.0).is_none());
        assert_eq!(sockets.take((at, Transport::Udp)).len(), 1);
        assert!(sockets.take_unix(Path::new("/elsewhere")).is_none());
        assert!(sockets.take_unix(&path).is_some() && sockets.is_empty());
    }

    #[test]
    fn whoever_waits_is_still_there_for_a_second_try() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let mut first = Sockets::of([tcp.into()]);
        let mut spare = first.spare();
        let waiting = std::net::TcpStream::connect(at).unwrap();
        drop(first.take((EntrypointAddr(at), Transport::Tcp)));
        let listener = spare.take_tcp(at).unwrap();
        assert_eq!(listener.accept().unwrap().1, waiting.local_addr().unwrap());
    }

    #[test]
    fn names_have_no_colons_and_tell_sockets_apart() {
        for (at, name) in [
            (At::Tcp("10.0.0.1:443".parse().unwrap()), "tcp-10.0.0.1_443"),
            (At::Udp("[2001:db8::1]:443".parse().unwrap()), "udp-_2001_db8__1__443"),
            (At::Unix("/run/weir/admin.sock".into()), "unix-_run_weir_admin.sock"),
        ] {
            assert_eq!(at.name(), name);
        }
    }
}
