//! The way to a syslog: a socket that is opened when it is needed, and again when it broke.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};

use crate::{config::model::Transport, tls::server::ServerTls};

/// A syslog may take so long to be connected to, and then to take something.
const CONNECT: Duration = Duration::from_secs(3);
const WRITE: Duration = Duration::from_secs(5);

pub struct Channel {
    to: To,
    open: Option<Open>,
}

enum To {
    Unix(PathBuf),
    Udp(Host),
    Tcp(Host),
    Tls(Host, Box<ServerTls>),
}

struct Host {
    name: String,
    port: u16,
}

enum Open {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

// === impl Channel ===

impl Channel {
    pub fn new(transport: &Transport) -> io::Result<Self> {
        let host = |name: &str, port| Host { name: name.to_owned(), port };
        let to = match transport {
            Transport::Unix(path) => To::Unix(path.clone()),
            Transport::Udp { host: name, port } => To::Udp(host(name, *port)),
            Transport::Tcp { host: name, port } => To::Tcp(host(name, *port)),
            Transport::Tls { host: name, port, tls } => {
                let tls = ServerTls::new(tls).map_err(io::Error::other)?;
                To::Tls(host(name, *port), Box::new(tls))
            }
        };
        Ok(Self { to, open: None })
    }

    pub fn is_local(&self) -> bool {
        matches!(self.to, To::Unix(_))
    }

    /// Whether the length of a message has to stand before it, since nothing else tells where it ends.
    pub fn counts_octets(&self) -> bool {
        matches!(self.to, To::Tcp(_) | To::Tls(..))
    }

    /// A socket that is open as far as can be told. The last messages before a daemon went away are lost all the same:
    /// syslog has no acknowledgements.
    pub fn open(&mut self) -> io::Result<()> {
        if self.open.as_mut().is_some_and(Open::is_closed) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(self.to.connect()?);
        }
        Ok(())
    }

    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = match self.open.as_mut() {
            None => return Err(io::ErrorKind::NotConnected.into()),
            Some(Open::Unix(socket)) => socket.send(message).map(drop),
            Some(Open::Udp(socket)) => match socket.send(message) {
                // What an earlier datagram met comes back with a later one: this one may still arrive.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    socket.send(message).map(drop)
                }
                sent => sent.map(drop),
            },
            Some(Open::Tcp(stream)) => stream.write_all(message),
            Some(Open::Tls(stream)) => stream.write_all(message).and_then(|()| stream.flush()),
        };
        if sent.is_err() {
            self.open = None;
        }
        sent
    }
}

// === impl To ===

impl To {
    fn connect(&self) -> io::Result<Open> {
        Ok(match self {
            Self::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(WRITE))?;
                socket.connect(path)?;
                Open::Unix(socket)
            }
            Self::Udp(host) => {
                let to = host.addresses()?[0];
                let any: SocketAddr =
                    if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                Open::Udp(socket)
            }
            Self::Tcp(host) => Open::Tcp(host.connect()?),
            Self::Tls(host, tls) => {
                let mut stream = host.connect()?;
                let mut session = tls.session().map_err(io::Error::other)?;
                while session.is_handshaking() {
                    session.complete_io(&mut stream)?;
                }
                Open::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        })
    }
}

// === impl Host ===

impl Host {
    /// At least one.
    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<_> = (&*self.name, self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            let message = format!("{} has no address", self.name);
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(addresses)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = None;
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_write_timeout(Some(WRITE))?;
                    stream.set_read_timeout(Some(WRITE))?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }
}

// === impl Open ===

impl Open {
    /// Whether the other side has closed it. A syslog says nothing, so what there is to read is its end, or TLS's own.
    fn is_closed(&mut self) -> bool {
        let closed = |stream: &TcpStream, read: &mut dyn FnMut() -> io::Result<usize>| {
            if stream.set_nonblocking(true).is_err() {
                return true;
            }
            let closed = match read() {
                Ok(length) => length == 0,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            };
            closed || stream.set_nonblocking(false).is_err()
        };
        match self {
            Self::Unix(_) | Self::Udp(_) => false,
            Self::Tcp(stream) => {
                let mut reader: &TcpStream = stream;
                closed(stream, &mut || reader.read(&mut [0; 64]))
            }
            Self::Tls(stream) => {
                let StreamOwned { conn, sock } = &mut **stream;
                let sock: &TcpStream = sock;
                closed(sock, &mut || {
                    let length = conn.read_tls(&mut &*sock)?;
                    let state = conn.process_new_packets().map_err(io::Error::other)?;
                    Ok(if state.peer_has_closed() { 0 } else { length })
                })
            }
        }
    }
}
