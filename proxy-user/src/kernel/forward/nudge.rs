//! Gets clients of a dead server to speak, so that they can be told.
//!
//! A reset must carry a number that only the two ends know. So the program makes one out of a packet of the client's, and a client
//! that waits for its server sends none. It is asked for one: an acknowledgement of nothing, which no connection takes, is
//! answered by one that says where the connection is (RFC 9293, 3.10.7.4). That meets the program, which resets it.
//!
//! Where raw sockets may not be opened (CAP_NET_RAW), clients learn it with the next packet that they send themselves.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto, socket,
};

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const ACK: u8 = 0x10;
const HOPS: u8 = 64;

#[derive(Debug, Default)]
pub struct Nudger {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    /// It was refused, and is not asked for again.
    refused: bool,
}

impl Nudger {
    /// Sends a client something in the name of the address that it is connected to.
    pub fn nudge(&mut self, from: SocketAddr, client: SocketAddr) {
        if self.refused {
            return;
        }
        let place = if client.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let family = if client.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        if place.is_none() {
            // Of IPPROTO_RAW: whoever sends writes the IP header too.
            match socket(
                family,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::Raw,
            ) {
                Ok(socket) => *place = Some(socket),
                Err(error) => {
                    tracing::info!(%error, "clients of a dead server are reset only when they send something");
                    self.refused = true;
                    return;
                }
            }
        }
        let Some(socket) = place.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let packet = packet(from, client);
        let sent = match client {
            SocketAddr::V4(to) => {
                let to = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
                sendto(socket, &packet, &to, MsgFlags::empty())
            }
            SocketAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(*to.ip(), 0, 0, 0));
                sendto(socket, &packet, &to, MsgFlags::empty())
            }
        };
        // What is lost is sent again with the next sweep.
        if let Err(error) = sent {
            tracing::debug!(%error, "a client of a dead server could not be asked for a packet");
        }
    }
}

fn packet(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(TCP_HEADER);
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend([0; 8]);
    tcp.extend([(TCP_HEADER as u8 / 4) << 4, ACK, 0, 0, 0, 0, 0, 0]);
    let pseudo = pseudo(from.ip(), to.ip());
    let sum = checksum(pseudo.iter().chain(&tcp).copied());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = (20 + TCP_HEADER) as u16;
            // The kernel fills in the checksum, and a number.
            let mut header = vec![0x45, 0];
            header.extend(length.to_be_bytes());
            header.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (from, to) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((TCP_HEADER as u16).to_be_bytes());
            header.extend([TCP, HOPS]);
            header.extend(wide(from));
            header.extend(wide(to));
            header
        }
    };
    packet.extend(tcp);
    packet
}

fn wide(ip: IpAddr) -> [u8; 16] {
    super::written::octets(ip)
}

/// What of the IP header goes into the checksum of TCP.
fn pseudo(from: IpAddr, to: IpAddr) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = [from.octets(), to.octets()].concat();
            bytes.extend([0, TCP, 0, TCP_HEADER as u8]);
            bytes
        }
        (from, to) => {
            let mut bytes = [wide(from), wide(to)].concat();
            bytes.extend([0, 0, 0, TCP_HEADER as u8, 0, 0, 0, TCP]);
            bytes
        }
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: impl Iterator<Item = u8>) -> u16 {
    let bytes: Vec<u8> = bytes.collect();
    let sum =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_has_checksums_that_add_up() {
        for (from, to, header) in
            [("192.0.2.1:25", "203.0.113.9:40000", 20), ("[2001:db8::1]:25", "[2001:db8::9]:40000", 40)]
        {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = packet(from, to);
            assert_eq!(packet.len(), header + TCP_HEADER);
            let whole = pseudo(from.ip(), to.ip()).into_iter().chain(packet[header..].iter().copied());
            assert_eq!(checksum(whole), 0, "a right checksum makes the sum all ones");
            assert_eq!(packet[header..header + 4], [0, 25, 0x9c, 0x40]);
        }
    }
}
