//! The socket that clients send to. Where it listens on all addresses, each datagram is asked for the one that it came to, and its
//! answers leave by that: a client takes them from nobody else.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space,
    libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
        sendmsg, setsockopt, sockopt,
    },
};
use socket2::SockRef;
use tokio::{io::Interest, net::UdpSocket};

use super::sessions::Key;
use crate::address::EntrypointAddr;

#[derive(Debug)]
pub struct Front {
    socket: UdpSocket,
    at: SocketAddr,
}

/// A datagram, in the buffer that it was read into.
#[derive(Debug, Clone, Copy)]
pub struct Got {
    pub length: usize,
    pub key: Key,
}

impl Front {
    pub fn new(at: EntrypointAddr, socket: std::net::UdpSocket) -> io::Result<Self> {
        if at.0.ip().is_unspecified() {
            match at.0 {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            }
        }
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, at: at.0 })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Got> {
        if !self.at.ip().is_unspecified() {
            let (length, client) = self.socket.try_recv_from(buffer)?;
            return Ok(Got { length, key: Key { client, local: None } });
        }
        self.socket.try_io(Interest::READABLE, || {
            let mut space = cmsg_space!(in6_pktinfo);
            let mut pieces = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message =
                recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
            let client = message.address.as_ref().and_then(address);
            let client = client.ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
            let local = message.cmsgs()?.find_map(|said| match said {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::from(u32::from_be(info.ipi_addr.s_addr).to_be_bytes()))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => None,
            });
            Ok(Got { length: message.bytes, key: Key { client, local } })
        })
    }

    /// An answer.
    ///
    /// # Errors
    /// `WouldBlock` when too much waits to be sent.
    pub fn send(&self, datagram: &[u8], to: &Key) -> io::Result<()> {
        // Not by way of the runtime: nobody waits until it can be written.
        let Some(local) = to.local else {
            return SockRef::from(&self.socket).send_to(datagram, &to.client.into()).map(drop);
        };
        let (fd, pieces, flags) = (self.socket.as_raw_fd(), [IoSlice::new(datagram)], MsgFlags::MSG_DONTWAIT);
        let sent = match (local, to.client) {
            (IpAddr::V4(local), SocketAddr::V4(client)) => {
                let from = in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: in_addr { s_addr: 0 } };
                let said = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &pieces, &said, flags, Some(&SockaddrIn::from(client)))
            }
            (IpAddr::V6(local), SocketAddr::V6(client)) => {
                // Of a link-local client the scope says which link.
                let info = in6_pktinfo {
                    ipi6_addr: in6_addr { s6_addr: local.octets() },
                    ipi6_ifindex: client.scope_id(),
                };
                let said = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &pieces, &said, flags, Some(&SockaddrIn6::from(client)))
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        sent.map(drop).map_err(io::Error::from)
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use super::*;

    #[tokio::test]
    async fn answers_leave_by_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let socket = StdSocket::bind(any).unwrap();
            let port = socket.local_addr().unwrap().port();
            let front = Front::new(EntrypointAddr(any.parse().unwrap()), socket).unwrap();
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            let client = StdSocket::bind(SocketAddr::new(
                if asked.is_ipv4() { [127, 0, 0, 1].into() } else { asked.ip() },
                0,
            ));
            let client = client.unwrap();
            client.send_to(b"question", asked).unwrap();
            front.readable().await.unwrap();
            let mut buffer = [0; 64];
            let got = front.receive(&mut buffer).unwrap();
            assert_eq!(&buffer[..got.length], b"question");
            assert_eq!(got.key, Key { client: client.local_addr().unwrap(), local: Some(asked.ip()) });
            front.send(b"answer", &got.key).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"answer"[..], asked));
        }
    }
}
